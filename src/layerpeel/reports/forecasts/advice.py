"""What to do about a forecast: sampling rates, counts, or a weaker decay."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._json import plain
from layerpeel._tolerances import EPS
from layerpeel.program import Decay, Energy, Oversampling, PeeledProblem, oversampling
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.oversampling import FIXED_ENERGIES
from layerpeel.program.reduction import alike
from layerpeel.reports.causes import causes
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
            total count of the problem.
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
        return _behind_relu(thresholds)
    if len(set(counts)) > MOST_GROUPS_SOLVED:
        return ForecastAdvice((_MANY_GROUPS,))
    return _of_energy(counts, problem.energy)


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


def _of_energy(counts: list[float], energy: Energy | None) -> ForecastAdvice:
    """Ask for the rates that part the rarest classes, where theory gives them."""
    assert energy is not None
    try:
        with causes():  # a vanished minority is said in the table
            plan = oversampling(counts, energy=energy)
    except ValueError as error:
        return ForecastAdvice((f"No sampling rate: {error}",))
    return ForecastAdvice((_rate_sentence(plan), plan.note), oversampling=plan)


def _rate_sentence(plan: Oversampling) -> str:
    before, after = plan.predicted_cosine_before, plan.predicted_cosine_after
    stands = "undefined" if math.isnan(before) else f"{before:+.3f}"
    if plan.rate == 1:
        return f"No oversampling is needed: the minority cosine is {stands}."
    lifted = sorted({rate for rate in plan.rates if rate > 1})
    how = (
        f"Draw every minority sample {plan.repeats} times, the least whole rate that"
        if len(lifted) == 1
        else f"Draw the samples of rare classes up to {plan.rate:.3g} times, as if every "
        f"class had at least {plan.floor:.4g}: the least floor that"
    )
    return (
        f"{how} brings the cosine between minority classifiers from {stands} to "
        f"{plan.target:+.3f} or less ({after:+.3f})."
    )


def _behind_relu(thresholds: Thresholds | None) -> ForecastAdvice:
    if thresholds is None:
        return ForecastAdvice((_UNKNOWN_RATE,))
    excess = thresholds.log_ratio - thresholds.log_collapse
    if excess < 0:
        said = "No oversampling is needed: the minority keeps its features."
        return ForecastAdvice((said,))
    rate = math.floor(math.exp(excess) * (1 + 64 * EPS)) + 1
    said = (
        f"Draw every minority sample {rate} times: the least whole rate that lifts the"
    )
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
    smallest = math.floor(merges_at * (1 + 64 * EPS)) + 1
    largest = _largest_decay(decay, count / merges_at)
    return ForecastAdvice(
        (
            _decay_sentence(count, merges_at, smallest),
            f"At these counts no class collapses while the product of all decays is "
            f"below {largest:.4g}; it is {_product(decay):.4g}.",
        ),
        smallest_count=smallest,
        largest_decay=largest,
    )


def _decay_sentence(count: float, merges_at: float, smallest: int) -> str:
    if count > merges_at:
        return (
            f"No class collapses: at this decay that takes {merges_at:.4g} samples or "
            f"fewer, and the rarest class has {count / merges_at:.3g} times as many."
        )
    return (
        f"Give every class at least {smallest} samples at the same total: classes of "
        f"{merges_at:.4g} or fewer collapse at this decay."
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
