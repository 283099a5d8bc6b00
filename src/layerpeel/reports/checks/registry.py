"""The list of all checks, and their explanations by code."""

from __future__ import annotations

from layerpeel._checks import one_of
from layerpeel.reports.checks.check import Check
from layerpeel.reports.checks.minority import COSINE, NORMS, RECALL
from layerpeel.reports.checks.terminal import (
    ABSENT,
    DEAD_UNITS,
    NEAREST_MEAN,
    SCATTER,
    VANISHED,
)
from layerpeel.reports.checks.theory import CONVENTION, FIT

CHECKS: tuple[Check, ...] = (
    COSINE,
    RECALL,
    NORMS,
    ABSENT,
    SCATTER,
    DEAD_UNITS,
    NEAREST_MEAN,
    FIT,
    CONVENTION,
    VANISHED,
)


def explain(code: str) -> str:
    """Return what a finding's code means.

    Args:
        code: A code such as ``"LP001"``, in any case.

    Returns:
        Its title, its explanation and the source of its threshold.

    Raises:
        ValueError: If there is no such check; the message lists all codes.

    Example:
        >>> explain("LP004").splitlines()[0]
        'LP004: Classes without samples'
    """
    checks = {check.code: check for check in CHECKS}
    check = checks[one_of("code", code.upper(), checks)]
    return (
        f"{check.code}: {check.title}\n\n{check.explanation}\n\n"
        f"Threshold: {check.source}\n"
    )
