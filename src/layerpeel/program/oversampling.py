"""How often to repeat minority samples so that their classifiers stay apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

from scipy.optimize import brentq

from layerpeel._checks import UndefinedWarning
from layerpeel._tolerances import EPS, OVERSAMPLING_MARGIN
from layerpeel.program.counts import CountGroup, checked_counts, one_or_two_groups
from layerpeel.program.dual_path import solve_two_groups
from layerpeel.program.energy import Energy
from layerpeel.program.problem import two_group_program
from layerpeel.program.thresholds import exp_or_inf, log_collapse_threshold
from layerpeel.program.two_groups import TwoGroups

# The tolerance on the logarithm of the rate: far below what an integer rate resolves.
_LOG_RATE_TOL = 1e-11

FIXED_ENERGIES = (
    "Predicted at fixed energies. Retraining with other rates moves the energies of "
    "the network, and the prediction with them: measure again afterwards."
)


@dataclass(frozen=True)
class Oversampling:
    r"""Sampling rates that keep minority classifiers apart, and what they change.

    Attributes:
        rates: How often each class is drawn against the majority's 1.0, real numbers,
            with length :math:`K`.
        rate: The rate of the minority.
        repeats: The same, rounded up: each minority sample appears this often.
        target: The mean minority classifier cosine that the rate is chosen for.
        predicted_cosine_before: The predicted mean cosine between minority classifiers
            without oversampling; NaN where they are predicted to be zero.
        predicted_cosine_after: The same with ``repeats``, or with ``ratio`` where
            that is less.
        ratio: The imbalance ratio :math:`R = n_A / n_B`.
        threshold: The ratio :math:`R_0` from which minority classifiers are equal;
            infinite for balanced counts.
        log_threshold: Its logarithm, which does not overflow.
        lifts_collapse: Whether minority classifiers are predicted to be equal without
            oversampling.
        note: What the prediction holds fixed.
    """

    rates: tuple[float, ...]
    rate: float
    repeats: int
    target: float
    predicted_cosine_before: float
    predicted_cosine_after: float
    ratio: float
    threshold: float
    log_threshold: float
    lifts_collapse: bool
    note: str = FIXED_ENERGIES


def oversampling(
    class_counts: Iterable[SupportsFloat],
    *,
    energy: Energy | Sequence[float],
    target: float | None = None,
) -> Oversampling:
    r"""Return the least oversampling of the minority that separates its classifiers.

    Drawing minority samples :math:`w` times as often turns the imbalance ratio
    :math:`R` of the Layer-Peeled Model into exactly :math:`R / w`, and the cosine
    between minority classifiers grows with the ratio. The least
    :math:`w \in [1, R]` that brings it to ``target`` is found at fixed energies.
    Collapse alone is lifted from :math:`w > R / R_0` on.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        class_counts: Counts with one or two distinct values, with length :math:`K`.
        energy: The energies :math:`(E_W, E_H)`, for instance as measured.
        target: The mean minority cosine to reach, in :math:`[-1/(K-1), 1)`. By default
            ``OVERSAMPLING_MARGIN`` above :math:`-1/(K-1)`, the balanced value, which
            itself would need the full ratio.

    Returns:
        The rates. All are one when the counts are balanced, or when the target is met
        already.

    Raises:
        ValueError: If the counts or energies are invalid, the target is out of reach,
            or the minority is a single class, which has no cosine.

    Warns:
        UndefinedWarning: If the minority classifiers are predicted to be zero without
            oversampling, so that the cosine before is NaN.

    Example:
        >>> plan = oversampling([500] * 5 + [10] * 5, energy=(1.0, 5.0), target=0.0)
        >>> round(plan.rate, 2), plan.repeats
        (14.12, 15)
        >>> plan.predicted_cosine_before, round(plan.predicted_cosine_after, 3)
        (1.0, -0.009)
        >>> round(plan.ratio / plan.threshold, 2)  # enough to lift the collapse alone
        4.1
    """
    counts = checked_counts(class_counts)
    goal = _checked_target(target, len(counts))
    tau = Energy.of(energy).nuclear_norm(len(counts))
    groups = one_or_two_groups(counts)
    if len(groups) == 1:
        return _nothing_to_do(len(counts), goal)
    _refuse_single(groups[1])
    return _plan(groups, two_group_program(groups, tau), goal)


def _plan(
    groups: Sequence[CountGroup], program: TwoGroups, target: float
) -> Oversampling:
    log_threshold = log_collapse_threshold(
        program.majority, program.minority, program.tau
    )
    before = _cosine(program, 0.0)
    if math.isnan(before):
        warnings.warn(
            "The cosine between minority classifiers is undefined without "
            "oversampling: they are predicted to be zero at this imbalance ratio.",
            UndefinedWarning,
            stacklevel=3,
        )
    ratio = groups[0].count / groups[1].count
    rate = min(math.exp(_least_log_rate(program, log_threshold, target)), ratio)
    # A rate within the tolerance of the root search above an integer is that integer.
    repeats = math.ceil(rate * (1 - 2 * _LOG_RATE_TOL))
    rates = dict.fromkeys(groups[0].classes, 1.0) | dict.fromkeys(
        groups[1].classes, rate
    )
    return Oversampling(
        rates=tuple(rates[k] for k in range(program.num_classes)),
        rate=rate,
        repeats=repeats,
        target=target,
        predicted_cosine_before=before,
        predicted_cosine_after=_cosine(program, math.log(repeats)),
        ratio=ratio,
        threshold=exp_or_inf(log_threshold),
        log_threshold=log_threshold,
        lifts_collapse=program.log_ratio >= log_threshold,
    )


def _least_log_rate(program: TwoGroups, log_threshold: float, target: float) -> float:
    """Return the log of the least rate that brings the cosine to the target."""
    # From the threshold on the cosine is one or undefined, so the search starts there.
    lowest = max(0.0, program.log_ratio - log_threshold)
    highest = program.log_ratio

    def excess(log_rate: float) -> float:
        return _cosine(program, log_rate) - target

    if excess(lowest) <= 0:
        return lowest
    if excess(highest) >= 0:
        return highest
    return float(brentq(excess, lowest, highest, xtol=_LOG_RATE_TOL))


def _cosine(program: TwoGroups, log_rate: float) -> float:
    """Return the predicted minority cosine with the minority drawn more often."""
    log_ratio = program.log_ratio - log_rate
    if log_ratio <= EPS:
        return -1 / (program.num_classes - 1)
    return solve_two_groups(replace(program, log_ratio=log_ratio)).minority_cosine


def _nothing_to_do(num_classes: int, target: float) -> Oversampling:
    balanced = -1 / (num_classes - 1)
    return Oversampling(
        rates=(1.0,) * num_classes,
        rate=1.0,
        repeats=1,
        target=target,
        predicted_cosine_before=balanced,
        predicted_cosine_after=balanced,
        ratio=1.0,
        threshold=math.inf,
        log_threshold=math.inf,
        lifts_collapse=False,
    )


def _checked_target(target: float | None, num_classes: int) -> float:
    balanced = -1 / (num_classes - 1)
    if target is None:
        return balanced + OVERSAMPLING_MARGIN
    if not balanced <= target < 1:
        raise ValueError(
            f"`target` must be a cosine in [{balanced:.6g}, 1): {num_classes} classes "
            "reach -1/(K-1) when they are balanced, and no oversampling takes them "
            f"further apart; got {target!r}."
        )
    return float(target)


def _refuse_single(minority: CountGroup) -> None:
    if len(minority.classes) == 1:
        raise ValueError(
            f"The minority must have at least 2 classes; got class "
            f"{minority.classes[0]} alone, which has no other to have a cosine with. "
            "Collapse does not concern it; sample it as accuracy asks."
        )
