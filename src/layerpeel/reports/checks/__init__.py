"""All checks, in the order in which a report asks them."""

from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.checks.registry import ALL_CHECKS, CHECKS, CLONE_CHECKS, explain

__all__ = [
    "ALL_CHECKS",
    "CHECKS",
    "CLONE_CHECKS",
    "Check",
    "Evidence",
    "explain",
]
