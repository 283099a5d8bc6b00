"""All checks, in the order in which a report asks them."""

from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.checks.registry import CHECKS, explain

__all__ = ["CHECKS", "Check", "Evidence", "explain"]
