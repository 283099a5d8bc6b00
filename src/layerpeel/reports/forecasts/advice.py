"""What to do about a forecast: sampling rates, counts, or a weaker decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import listed
from layerpeel._json import plain
from layerpeel._tolerances import EPS
from layerpeel.program import Decay, Oversampling, PeeledProblem, oversampling
from layerpeel.program.class_level import ClassLevel, SquaredLoss
from layerpeel.program.counts import count_groups
from layerpeel.program.oversampling import FIXED_ENERGIES
from layerpeel.program.reduction import alike
from layerpeel.reports.causes import causes
from layerpeel.reports.forecasts.groups import counts_text
from layerpeel.reports.forecasts.thresholds import Thresholds, is_layer_peeled

# Rates for many distinct counts take some thirty solves.
MOST_GROUPS_SOLVED = 200

_MANY_GROUPS = (
    "Sampling rates for this many distinct counts take some time: ask "
    "`lp.oversampling(class_counts, energy=...)` for them."
)
_UNKNOWN_RATE = (
    "No sampling rate: theory gives one for the plain Layer-Peeled Model, with two groups "
    "of classes where features are nonnegative. Solve this problem at other counts."
)


@dataclass(frozen=True)
class ForecastAdvice:
    r"""What would keep the classes apart.

    Attributes:
        sentences: What to do, in words.
        oversampling: Sampling rates at fixed energies, where there is something to lift
            and theory gives a rate.
        smallest_count: The least count that keeps classes apart at the decay and the
            total count of the problem; ``None`` where the total is too small for all
            classes to have it.
        largest_decay: The largest product of all decays at which no class of these
            counts collapses.
    """

    sentences: tuple[str, ...]
    oversampling: Oversampling | None = None
    smallest_count: int | None = None
    largest_decay: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        content: dict[str, Any] = plain(asdict(self))
        return content


def advise(
    problem: PeeledProblem,
    merging: Float64[Tensor, " K"] | None,
    thresholds: Thresholds | None,
) -> ForecastAdvice:
    """Return what would keep the classes of a problem apart.

    Args:
        problem: The problem.
        merging: The counts up to which classes merge, where they are known.
        thresholds: Its thresholds, if there are any.
    """
    program = problem.class_level()
    if problem.weight_decay is not None:
        return _of_decay(problem, problem.weight_decay, merging)
    if len(alike(program)) == 1:
        return ForecastAdvice(("All classes are alike: there is nothing to balance.",))
    counts = _effective_counts(problem, program)
    if counts is None:
        return ForecastAdvice((_UNKNOWN_RATE,))
    if program.nonnegative:
        return _behind_relu(problem, alike(program)[-1], thresholds)
    if len(set(counts)) > MOST_GROUPS_SOLVED:
        return ForecastAdvice((_MANY_GROUPS,))
    return _of_energy(problem, counts)


def _effective_counts(
    problem: PeeledProblem, program: ClassLevel
) -> list[float] | None:
    """Return the counts of the Layer-Peeled Model that a problem is, if it is one."""
    if not is_layer_peeled(program):
        return None
    if problem.class_weights is None:
        return list(problem.class_counts)
    # With features per class, class weights act like counts.
    alone = bool((program.feature_weights == 1).all())
    return program.weights.tolist() if alone else None


def _of_energy(problem: PeeledProblem, counts: list[float]) -> ForecastAdvice:
    """Ask for the rates that part the rarest classes, where theory gives them.

    Args:
        problem: The problem, with energies.
        counts: Its effective counts, whose rarer classes are the minority.
    """
    assert problem.energy is not None
    try:
        with causes():  # a vanished minority is said in the table
            plan = oversampling(counts, energy=problem.energy)
    except ValueError as error:
        return ForecastAdvice((f"No sampling rate: {error}",))
    two_groups = len(count_groups(counts)) == 2
    sentence = (_rate_sentence if two_groups else _floor_sentence)(problem, plan)
    return ForecastAdvice((sentence, plan.note), oversampling=plan)


def _rate_sentence(problem: PeeledProblem, plan: Oversampling) -> str:
    """Say how often the samples of one group are to be drawn."""
    group, stands = _named(problem, plan.minority), _stands(plan)
    if plan.rate == 1:
        return f"No oversampling is needed: the cosine between {group} is {stands}."
    return (
        f"Draw every sample of {group} {plan.repeats} times, the least whole rate that "
        f"brings the cosine between their classifiers from {stands} to "
        f"{plan.target:+.3f} or less ({plan.predicted_cosine_after:+.3f})."
    )


def _floor_sentence(problem: PeeledProblem, plan: Oversampling) -> str:
    """Say up to which count rare classes are to be lifted."""
    group, stands = _named(problem, plan.minority), _stands(plan)
    if plan.rate == 1:
        return (
            f"No oversampling is needed: the mean cosine between {group} is {stands}."
        )
    # With class weights the floor is one of loss weights, not of samples.
    floor = (
        f"as if every class had at least {plan.floor:.4g}: the least floor"
        if problem.class_weights is None
        else "at the `rates` of this advice: the least floor of their loss weights"
    )
    lifted = sum(rate > 1 for rate in plan.rates)
    least = "rarest" if problem.class_weights is None else "least weighed"
    which = f"{lifted} {least} classes" if lifted > 1 else f"{least} class"
    return (
        f"Draw the samples of the {which} up to {plan.rate:.3g} times, "
        f"{floor} that brings the mean cosine between the classifiers of the minority, "
        f"{group}, from {stands} to {plan.target:+.3f} or less "
        f"({plan.predicted_cosine_after:+.3f})."
    )


def _stands(plan: Oversampling) -> str:
    before = plan.predicted_cosine_before
    return "undefined" if math.isnan(before) else f"{before:+.3f}"


def _named(problem: PeeledProblem, classes: Sequence[int]) -> str:
    """Name classes by their counts, and by their indices where others have such too."""
    inside = [problem.class_counts[k] for k in classes]
    counts = counts_text(min(inside), max(inside))
    said = (
        f"the {len(classes)} classes of {counts} samples"
        if len(classes) > 1
        else f"the class of {counts} samples"
    )
    between = sum(min(inside) <= n <= max(inside) for n in problem.class_counts)
    unique = between == len(classes)
    return said if unique else f"{said} with indices {listed(sorted(classes))}"


def _behind_relu(
    problem: PeeledProblem, minority: tuple[int, ...], thresholds: Thresholds | None
) -> ForecastAdvice:
    if thresholds is None:
        return ForecastAdvice((_UNKNOWN_RATE,))
    group = _named(problem, minority)
    excess = thresholds.log_ratio - thresholds.log_collapse
    if excess < 0:
        keep = "keeps its feature" if len(minority) == 1 else "keep their features"
        return ForecastAdvice((f"No oversampling is needed: {group} {keep}.",))
    rate = math.floor(math.exp(excess) * (1 + 64 * EPS)) + 1
    said = f"Draw every sample of {group} {rate} times: the least whole rate that lifts the"
    return ForecastAdvice((f"{said} collapse.", FIXED_ENERGIES))


def _of_decay(
    problem: PeeledProblem, decay: Decay, merging: Float64[Tensor, " K"] | None
) -> ForecastAdvice:
    if merging is None:
        said = "No threshold is known for this problem: read the norms and cosines."
        return ForecastAdvice((said,))
    # The class that is deepest below the count at which it merges, or nearest to it.
    counts = torch.tensor(problem.class_counts, dtype=torch.float64)
    worst = int((counts / merging).argmin())
    count, merges_at = float(counts[worst]), float(merging[worst])
    largest = _largest_decay(decay, count / merges_at)
    # Every class has a least count, and together they may be more than there are.
    needed = float(_least_counts(merging).sum())
    enough = count > merges_at or needed <= math.fsum(problem.class_counts)
    smallest = int(_least_counts(merging)[worst])
    few = f"{_who_collapses(problem)} of {merges_at:.4g} samples or fewer"
    said = (
        _decay_sentence(count, merges_at, few, smallest)
        if enough
        else _impossible_sentence(problem, few, needed)
    )
    return ForecastAdvice(
        (
            said,
            f"At these counts no class collapses while the product of all decays is "
            f"below {largest:.4g}; it is {_product(decay):.4g}.",
        ),
        smallest_count=smallest if enough else None,
        largest_decay=largest,
    )


def _least_counts(merging: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
    """Return the least whole counts above those at which classes merge."""
    return (merging * (1 + 64 * EPS)).floor() + 1


def _who_collapses(problem: PeeledProblem) -> str:
    """Say whether a class below the threshold collapses by itself."""
    program = problem.class_level()
    squared = isinstance(program.loss, SquaredLoss) and program.ridge is None
    return "classes" if program.nonnegative or squared else "two or more classes"


def _decay_sentence(count: float, merges_at: float, few: str, smallest: int) -> str:
    if count > merges_at:
        return (
            f"No class collapses: at this decay that takes {merges_at:.4g} samples or "
            f"fewer, and the rarest class has {count / merges_at:.3g} times as many."
        )
    return (
        f"Give every class at least {smallest} samples at the same total: {few} "
        "collapse at this decay."
    )


def _impossible_sentence(problem: PeeledProblem, few: str, needed: float) -> str:
    return (
        f"No counts at this total lift every class: {few} collapse at this decay, and "
        f"{problem.num_classes} classes with more have at least {needed:.10g} in all, "
        f"which is above {math.fsum(problem.class_counts):.10g}. Weaken the decay."
    )


def _largest_decay(decay: Decay, share: float) -> float:
    """Return the product of decays at which a count is this share of the merging one.

    The merging count grows with the product to the power 1/M for decay per sample, and
    1/(M+1) per class.
    """
    power = decay.depth if decay.per == "sample" else decay.depth + 1
    return math.exp(power * math.log(share) + math.log(_product(decay)))


def _product(decay: Decay) -> float:
    return math.prod((*decay.layers, decay.features))
