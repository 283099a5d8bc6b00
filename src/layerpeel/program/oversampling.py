"""How often to repeat samples of rare classes so that their classifiers stay apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat, TypeVar

from scipy.optimize import brentq

from layerpeel._checks import listed
from layerpeel._tolerances import EPS, OVERSAMPLING_MARGIN
from layerpeel._warnings import warn
from layerpeel.geometry import split_classes
from layerpeel.program.counts import CountGroup, checked_counts, count_groups
from layerpeel.program.energy import Energy
from layerpeel.program.floor import LOG_FLOOR_TOL, FloorPath
from layerpeel.program.pairs.dual_path import solve_two_groups
from layerpeel.program.pairs.pair import two_group_program
from layerpeel.program.pairs.thresholds import (
    exp_or_inf,
    log_collapse_threshold,
    log_vanishing_threshold,
)
from layerpeel.program.pairs.two_groups import TwoGroups

# The tolerance on the logarithm of the rate: far below what an integer rate resolves.
_LOG_RATE_TOL = 1e-11

T = TypeVar("T")

FIXED_ENERGIES = (
    "Predicted at fixed energies. Retraining with other rates moves the energies of "
    "the network, and the prediction with them: measure again afterwards."
)


@dataclass(frozen=True)
class Oversampling:
    r"""Sampling rates that keep minority classifiers apart, and what they change.

    Attributes:
        rates: How often each class is drawn against the most frequent one's 1.0, real
            numbers, with length :math:`K`.
        rate: The largest of them, that of the minority or of the rarest class.
        repeats: The same, rounded up: each of its samples appears this often.
        floor: The effective count of the classes that are lifted,
            :math:`\max(n_k, f)`; the smallest count where none is.
        target: The mean minority classifier cosine that the rate is chosen for.
        predicted_cosine_before: The predicted mean cosine between minority classifiers
            without oversampling; NaN where they are predicted to be zero.
        predicted_cosine_after: With two distinct counts, the same with ``repeats``, or
            with ``ratio`` where that is less. With more, with ``rates`` as they are,
            which ``oversampled_indices`` realises at random: whole repeats would lift
            classes just below the floor far above it.
        ratio: The imbalance ratio :math:`R`, the largest count over the smallest.
        threshold: The ratio :math:`R_0` from which minority classifiers are equal;
            infinite for balanced counts. With more than two distinct counts, the largest
            count over the least floor that lifts the collapse, and NaN where there is
            none to lift. In both cases ``ratio / threshold`` is the rate of the rarest
            class at which the collapse ends.
        log_threshold: Its logarithm, which does not overflow.
        lifts_collapse: Whether minority classifiers are predicted to be equal without
            oversampling. With more than two distinct counts, whether at least two
            classes are at or below the collapse threshold; their classifiers then span
            fewer dimensions than there are classes, and are equal only where the counts
            are.
        minority: The classes whose mean cosine is meant.
        note: What the prediction holds fixed.
    """

    rates: tuple[float, ...]
    rate: float
    repeats: int
    floor: float
    target: float
    predicted_cosine_before: float
    predicted_cosine_after: float
    ratio: float
    threshold: float
    log_threshold: float
    lifts_collapse: bool
    minority: tuple[int, ...]
    note: str = FIXED_ENERGIES


def oversampling(
    class_counts: Iterable[SupportsFloat],
    *,
    energy: Energy | Sequence[float],
    target: float | None = None,
    minority: Sequence[int] | None = None,
) -> Oversampling:
    r"""Return the least oversampling of rare classes that separates their classifiers.

    Drawing the samples of class :math:`k` :math:`r_k` times as often makes its count in
    the Layer-Peeled Model exactly :math:`n_k r_k`. With :math:`r_k = \max(1, f / n_k)`
    all rare classes are lifted to one floor :math:`f`; at the largest count the
    classes are balanced. The least floor that brings the mean cosine between minority
    classifiers to ``target`` is found at fixed energies.

    With two distinct counts :math:`f = w n_B`, and the imbalance ratio :math:`R`
    becomes :math:`R / w`. Collapse alone is lifted from :math:`w > R / R_0` on. With
    more, it is lifted where at most one class is left at or below the threshold
    :math:`\pi_k = \mu`, the multiplier of the norm budget. The cosine falls with the
    floor in every program that we tried, but for ripples near full collapse; ten to
    thirty solves find the floor.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        class_counts: Positive counts, with length :math:`K`.
        energy: The energies :math:`(E_W, E_H)`, for instance as measured.
        target: The mean minority cosine to reach, in :math:`[-1/(K-1), 1)`. By default
            ``OVERSAMPLING_MARGIN`` above :math:`-1/(K-1)`, the balanced value, which
            itself would need the full ratio.
        minority: The classes whose mean cosine is to reach the target. By default the
            rarer of two groups, and the minority of
            :func:`~layerpeel.geometry.split_classes` for more distinct counts, or all
            classes where that finds none. It stays the same whichever classes the floor
            lifts.

    Returns:
        The rates. All are one when the counts are balanced, or when the target is met
        already.

    Raises:
        ValueError: If the counts or energies are invalid, the target is out of reach,
            or the minority is a single class, which has no cosine. Of two groups, the
            message then says whether the class vanishes, and the rate that ends it.

    Warns:
        UndefinedWarning: If minority classifiers are predicted to be zero without
            oversampling, so that the cosine before is NaN.

    Example:
        >>> plan = oversampling([500] * 5 + [10] * 5, energy=(1.0, 5.0), target=0.0)
        >>> round(plan.rate, 2), plan.repeats
        (14.12, 15)
        >>> plan.predicted_cosine_before, round(plan.predicted_cosine_after, 3)
        (1.0, -0.009)
        >>> round(plan.ratio / plan.threshold, 2)  # enough to lift the collapse alone
        4.1
        >>> plan = oversampling([500, 200, 80, 30, 12, 5], energy=(1.0, 5.0), target=0.0)
        >>> [round(rate, 1) for rate in plan.rates]  # up to 36 samples of every class
        [1.0, 1.0, 1.0, 1.2, 3.0, 7.3]
    """
    counts = checked_counts(class_counts)
    goal = _checked_target(target, len(counts))
    energy = Energy.of(energy)
    groups = count_groups(counts)
    if len(groups) == 1:
        return _nothing_to_do(counts, goal)
    block = _checked_minority(minority, counts, energy)
    if len(groups) == 2 and block == groups[1].classes and energy.per == "class":
        program = two_group_program(groups, energy.nuclear_norm(len(counts)))
        return _plan(groups, program, goal)
    return _plan_floor(FloorPath(counts, energy, block), goal)


def _plan(
    groups: Sequence[CountGroup], program: TwoGroups, target: float
) -> Oversampling:
    """Return the rate of two groups, whose program has four scalars."""
    log_threshold = log_collapse_threshold(
        program.majority, program.minority, program.tau
    )
    before = _cosine(program, 0.0)
    _warn_of_vanished(before)
    ratio = groups[0].count / groups[1].count
    rate = min(math.exp(_least_log_rate(program, log_threshold, target)), ratio)
    repeats = _rounded_up(rate, _LOG_RATE_TOL)
    return Oversampling(
        rates=_by_class(groups, (1.0, rate)),
        rate=rate,
        repeats=repeats,
        floor=min(rate * groups[1].count, groups[0].count),
        target=target,
        predicted_cosine_before=before,
        predicted_cosine_after=_cosine(program, math.log(repeats)),
        ratio=ratio,
        threshold=exp_or_inf(log_threshold),
        log_threshold=log_threshold,
        lifts_collapse=program.log_ratio >= log_threshold,
        minority=groups[1].classes,
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


def _plan_floor(path: FloorPath, target: float) -> Oversampling:
    """Return the rates of any counts, by their floor."""
    counts, smallest, largest = path.counts, min(path.counts), max(path.counts)
    before = path.at(smallest)
    _warn_of_vanished(before.cosine)
    floor = path.separating_floor(target)
    rates = tuple(max(1.0, floor / count) for count in counts)
    threshold = largest / path.lifting_floor()
    repeats = _rounded_up(max(rates), LOG_FLOOR_TOL)
    return Oversampling(
        rates=rates,
        rate=max(rates),
        repeats=repeats,
        floor=floor,
        target=target,
        predicted_cosine_before=before.cosine,
        predicted_cosine_after=path.at(_realised_floor(path, floor, repeats)).cosine,
        ratio=largest / smallest,
        threshold=threshold,
        log_threshold=math.log(threshold),
        lifts_collapse=before.lead <= 0,
        minority=path.block,
    )


def _realised_floor(path: FloorPath, floor: float, repeats: int) -> float:
    """Return the floor that is drawn: of two groups, whole repeats of the rarer one."""
    if len(count_groups(path.counts)) > 2:
        return floor
    return min(repeats * min(path.counts), max(path.counts))


def _nothing_to_do(counts: tuple[float, ...], target: float) -> Oversampling:
    balanced = -1 / (len(counts) - 1)
    return Oversampling(
        rates=(1.0,) * len(counts),
        rate=1.0,
        repeats=1,
        floor=min(counts),
        target=target,
        predicted_cosine_before=balanced,
        predicted_cosine_after=balanced,
        ratio=1.0,
        threshold=math.inf,
        log_threshold=math.inf,
        lifts_collapse=False,
        minority=tuple(range(len(counts))),
    )


def _rounded_up(rate: float, log_tol: float) -> int:
    """A rate within the tolerance of the root search above an integer is that integer."""
    return math.ceil(rate * (1 - 2 * log_tol))


def _by_class(groups: Sequence[CountGroup], values: tuple[T, T]) -> tuple[T, ...]:
    """Return the value of its group for every class."""
    of = {
        k: value
        for group, value in zip(groups, values, strict=True)
        for k in group.classes
    }
    return tuple(of[k] for k in range(len(of)))


def _warn_of_vanished(cosine: float) -> None:
    if math.isnan(cosine):
        warn(
            "The cosine between minority classifiers is undefined without "
            "oversampling: they are predicted to be zero at this imbalance ratio."
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


def _checked_minority(
    minority: Sequence[int] | None, counts: tuple[float, ...], energy: Energy
) -> tuple[int, ...]:
    """Return the classes to separate, in increasing order."""
    if minority is None:
        groups = count_groups(counts)
        block = groups[1].classes if len(groups) == 2 else split_classes(counts).block
    else:
        block = tuple(sorted(set(minority)))
        outside = [k for k in block if not 0 <= k < len(counts)]
        if outside or len(block) != len(minority):
            raise ValueError(
                f"`minority` must hold class indices in [0, {len(counts)}), each once; "
                f"got {listed(list(minority))}."
            )
    if len(block) < 2:
        raise ValueError(
            f"The minority must have at least 2 classes; got class "
            f"{listed(block) or 'none'} alone, which has no other to have a cosine "
            f"with. {_what_a_single_class_does(block, counts, energy)}"
        )
    return block


def _what_a_single_class_does(
    block: tuple[int, ...], counts: tuple[float, ...], energy: Energy
) -> str:
    """Say whether a class by itself vanishes, where a formula tells."""
    groups = count_groups(counts)
    if len(groups) != 2 or block != groups[1].classes or energy.per != "class":
        return (
            "It can vanish all the same: solve the `PeeledProblem`, or name more classes "
            "with `minority`."
        )
    majority, tau = len(groups[0].classes), energy.nuclear_norm(len(counts))
    log_ratio = math.log(groups[0].count / groups[1].count)
    return _vanishing_sentence(log_ratio, log_vanishing_threshold(majority, 1, tau))


def _vanishing_sentence(log_ratio: float, log_vanishing: float) -> str:
    r"""Say whether a single rare class vanishes, and what brings it back.

    A rate :math:`w` divides the imbalance ratio by :math:`w`, and the class is zero from
    :math:`R_1` on, so every rate above :math:`R / R_1` brings it back.
    """
    if math.isinf(log_vanishing):
        return "It never vanishes at these energies (R1 is infinite)."
    ratio, vanishing = exp_or_inf(log_ratio), exp_or_inf(log_vanishing)
    if log_ratio < log_vanishing:
        return f"It vanishes from R1 = {vanishing:.4g} on; R = {ratio:.4g} is below."
    rate = exp_or_inf(log_ratio - log_vanishing)
    return (
        f"It vanishes from R1 = {vanishing:.4g} on, and R = {ratio:.4g}: draw its samples "
        f"more than R / R1 = {rate:.4g} times to bring it back."
    )
