"""The lists of all checks, and their explanations by code."""

from __future__ import annotations

from layerpeel._checks import one_of
from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.checks.clone_data import FLAT, HELD_OUT, INTERPOLATION, SAMPLES
from layerpeel.reports.checks.clones import CLONES, LOW_RANK, NULLS, SPARE
from layerpeel.reports.checks.minority import COSINE, NORMS, RECALL
from layerpeel.reports.checks.terminal import (
    ABSENT,
    DEAD_UNITS,
    NEAREST_MEAN,
    SCATTER,
    VANISHED,
)
from layerpeel.reports.checks.theory import CONVENTION, FIT
from layerpeel.reports.clone_evidence import CloneEvidence

CHECKS: tuple[Check[Evidence], ...] = (
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
"""The checks of a measurement."""

CLONE_CHECKS: tuple[Check[CloneEvidence], ...] = (
    CLONES,
    LOW_RANK,
    SAMPLES,
    NULLS,
    HELD_OUT,
    INTERPOLATION,
    SPARE,
    FLAT,
)
"""The checks of a clone profile."""

ALL_CHECKS: tuple[Check[Evidence] | Check[CloneEvidence], ...] = (
    *CHECKS,
    *CLONE_CHECKS,
)
"""The checks of measurements and of clone profiles, in the order of their codes."""


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
    checks = {check.code: check for check in ALL_CHECKS}
    check = checks[one_of("code", code.upper(), checks)]
    return (
        f"{check.code}: {check.title}\n\n{check.explanation}\n\n"
        f"Threshold: {check.source}\n"
    )
