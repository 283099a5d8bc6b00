r"""How much to oversample, and how sure theory is of it.

In the Layer-Peeled Model, drawing each minority sample :math:`w` times as often divides
the imbalance :math:`R` by :math:`w`, exactly (Fang et al. 2021). Whether :math:`R` lies
beyond the collapse threshold :math:`R_0` is a poor guide on its own: well below it, the
minority classifiers have already drawn together. The advice is therefore the least rate
that brings the *predicted cosine* back to a stated target. In a long tail every class
has its own rate: rare classes are lifted to one effective count, the least that does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from layerpeel.geometry import etf_cosine
from layerpeel.measurement import Measurement
from layerpeel.program import Oversampling, oversampling
from layerpeel.program.floor import FloorPath
from layerpeel.reports.causes import causes
from layerpeel.reports.prediction import Prediction, Predictions
from layerpeel.reports.solved_counts import BINS

# Rates of more classes than this are named by attribute rather than spelled out.
MOST_CLASSES_SPELLED = 20

# What the search for a floor leaves of a hundredth of a rate.
_ROUNDING = 1e-4

# The tolerance on the logarithm of a floor whose rate is rounded up to a whole number.
_LOG_FLOOR_TOL = 1e-2


@dataclass(frozen=True)
class Advice:
    """An oversampling rate per class, with the reason for its size.

    Attributes:
        rates: How often each sample of a class is drawn per epoch, one entry per class;
            whole numbers for two groups of classes, and on average in a long tail.
        action: What to do, as a sentence.
        reason: Where the rate comes from and what it does not account for.
        by_convention: The least rate of the rarest classes under each energy convention,
            rounded up; empty when there is no prediction.
        oversampling: The solved rate under the default convention, if there is one.
    """

    rates: tuple[float, ...]
    action: str
    reason: str
    by_convention: dict[str, int]
    oversampling: Oversampling | None = None

    @property
    def rate(self) -> float:
        """The largest rate, that of the minority where groups are oversampled."""
        return max(self.rates)

    @property
    def command(self) -> str:
        """The line of code that applies the rates."""
        rates = "report.advice.rates"
        if len(self.rates) <= MOST_CLASSES_SPELLED:
            rates = str(list(self.rates))
        whole = all(float(rate).is_integer() for rate in self.rates)
        seed = "" if whole else ", generator=torch.Generator().manual_seed(0)"
        return f"indices = lp.oversampled_indices(labels, rates={rates}{seed})"


def advise(measurement: Measurement, predictions: Predictions) -> Advice | None:
    """Return the oversampling that lifts the minority, if there is one to advise.

    Args:
        measurement: What was measured.
        predictions: The peeled program at the measured energies.

    Returns:
        The least rate that reaches the default target of
        :func:`layerpeel.program.oversampling`. Where theory gives no rate, or says that
        none is needed, the rates that balance the classes, and ``reason`` says so.
        ``None`` when no class is rare enough for a whole rate above one.
    """
    if max(_balancing_rates(measurement)) == 1 or not _minority_is_rarer(measurement):
        return None
    if len(measurement.groups.minority) < 2 or not _solved(predictions):
        return _balancing(measurement, _why_unsolved(measurement, predictions))
    with causes():  # a vanished minority is said in words
        plan = _plan_tail if predictions.tail else _plan_groups
        default, by_convention = plan(measurement, predictions)
    if default.repeats == 1:
        reason = _unexplained(default)
        return _balancing(measurement, reason, by_convention, default)
    advised = _tail_advice if predictions.tail else _group_advice
    return advised(measurement, predictions, default, by_convention)


def _solved(predictions: Predictions) -> tuple[Prediction, ...]:
    return tuple(item for item in predictions.items if item.solution.status.success)


# Two groups: one rate ---------------------------------------------------------------


def _plan_groups(
    measurement: Measurement, predictions: Predictions
) -> tuple[Oversampling, dict[str, int]]:
    solved = {
        item.convention: oversampling(predictions.class_counts, energy=item.energy)
        for item in _solved(predictions)
    }
    rates = {name: least.repeats for name, least in solved.items()}
    return next(iter(solved.values())), rates


def _group_advice(
    measurement: Measurement,
    predictions: Predictions,
    default: Oversampling,
    by_convention: dict[str, int],
) -> Advice:
    reached = (
        f"Drawing each minority sample {default.repeats} times is predicted to reach "
        f"{default.predicted_cosine_after:+.3f}."
    )
    return Advice(
        rates=_minority_rates(measurement, default.repeats),
        action=(
            f"Oversample the minority classes {default.repeats} times: the least whole "
            f"rate that brings their predicted cosine to {default.target:+.3f}."
        ),
        reason=_steered(default, reached, by_convention, predictions),
        by_convention=by_convention,
        oversampling=default,
    )


# A long tail: one floor -------------------------------------------------------------


def _plan_tail(
    measurement: Measurement, predictions: Predictions
) -> tuple[Oversampling, dict[str, int]]:
    """Solve the default convention as such, and the floors of the others coarsely."""
    minority = measurement.groups.minority
    assert predictions.solved is not None  # there are items
    counts = predictions.solved.with_at_most(BINS).counts
    first, *others = _solved(predictions)
    default = oversampling(counts, energy=first.energy, minority=minority)
    floors = {first.convention: default.floor}
    for item in others:
        path = FloorPath(counts, item.energy, minority)
        floors[item.convention] = path.separating_floor(default.target, _LOG_FLOOR_TOL)
    rarest = min(measurement.class_counts)
    rates = {name: math.ceil(max(1.0, f / rarest)) for name, f in floors.items()}
    return default, rates


def _tail_advice(
    measurement: Measurement,
    predictions: Predictions,
    default: Oversampling,
    by_convention: dict[str, int],
) -> Advice:
    rates = tuple(_hundredths(default.floor / n) for n in measurement.class_counts)
    lifted = sum(rate > 1 for rate in rates)
    reached = (
        f"Drawing classes of fewer than {default.floor:.4g} samples as if they had that "
        "many is predicted to reach it; whole rates would not, as they lift classes just "
        "below that count far above it."
    )
    return Advice(
        rates=rates,
        action=(
            f"Draw the {lifted} rarest classes as if each had {default.floor:.4g} "
            f"samples, up to {max(rates):.3g} times each: the least count that brings "
            f"the predicted cosine of the minority to {default.target:+.3f}."
        ),
        reason=_steered(default, reached, by_convention, predictions),
        by_convention=by_convention,
        oversampling=default,
    )


def _hundredths(rate: float) -> float:
    """Round a rate up, so that rounding lifts no class less than was asked."""
    return max(1.0, math.ceil(100 * rate - _ROUNDING) / 100)


# In words ---------------------------------------------------------------------------


def _steered(
    default: Oversampling,
    reached: str,
    rates: dict[str, int],
    predictions: Predictions,
) -> str:
    before = default.predicted_cosine_before
    standing = (
        "predicts that the minority classifiers vanish"
        if math.isnan(before)
        else f"puts the mean cosine between minority classifiers at {before:+.3f}"
    )
    which = "rate of the rarest class" if predictions.tail else "rate"
    return (
        f"At the measured energies the peeled model {standing}; balanced training ends "
        f"at {etf_cosine(len(default.rates)):+.3f}, and the target is "
        f"{default.target:+.3f}. {reached} Over the ways to "
        f"read the energies off the network, the least {which} runs from "
        f"{min(rates.values())} to {max(rates.values())}. Retraining moves the energies, "
        "so measure again afterwards.\n\n"
        f"The collapse threshold alone would say: {threshold_sentence(predictions)}. "
        f"{_THRESHOLD_CAVEAT[predictions.tail]}"
    )


_THRESHOLD_CAVEAT = {
    False: (
        "R0 is exponential in the energies and marks complete collapse only, so it is "
        "not what the rate is chosen by."
    ),
    True: (
        "Classifiers of classes below it lie close together and span fewer dimensions "
        "than there are classes; they are equal only where the counts are. It marks "
        "complete collapse only, so it is not what the rates are chosen by."
    ),
}


def _unexplained(default: Oversampling) -> str:
    return (
        "The peeled model, at the measured energies, already predicts a minority cosine "
        f"of {default.predicted_cosine_before:+.3f} and asks for no oversampling, so it "
        "does not explain what was measured. The rates are those that balance the "
        "classes."
    )


def _why_unsolved(measurement: Measurement, predictions: Predictions) -> str:
    cause = predictions.reason or "a single minority class has no cosine to steer by"
    return f"The rates are those that balance the classes; theory gives none: {cause}"


def _balancing(
    measurement: Measurement,
    reason: str,
    by_convention: dict[str, int] | None = None,
    solved: Oversampling | None = None,
) -> Advice:
    rates = _balancing_rates(measurement)
    action = f"Oversample rare classes up to {max(rates)} times: balance the classes."
    return Advice(rates, action, reason, by_convention or {}, solved)


def _balancing_rates(measurement: Measurement) -> tuple[int, ...]:
    counts = measurement.class_counts
    return tuple(max(1, round(max(counts) / count)) if count else 1 for count in counts)


def _minority_is_rarer(measurement: Measurement) -> bool:
    """Whether there is a minority, and a named one is one."""
    counts, groups = measurement.moments.count, measurement.groups
    if groups.balanced or not groups.majority:
        return False
    return bool(
        counts[list(groups.minority)].mean() < counts[list(groups.majority)].mean()
    )


def _minority_rates(measurement: Measurement, rate: int) -> tuple[int, ...]:
    minority = set(measurement.groups.minority)
    return tuple(rate if k in minority else 1 for k in range(measurement.num_classes))


def threshold_sentence(predictions: Predictions) -> str:
    """Say where the counts stand against the collapse threshold, and how surely."""
    if predictions.tail:
        return _tail_sentence(predictions)
    logs = [
        p.log_threshold for p in predictions.items if math.isfinite(p.log_threshold)
    ]
    if not logs:
        return ""
    return (
        f"R = {predictions.imbalance:.3g} (log R = "
        f"{math.log(predictions.imbalance):.2f}) against log R0 = {logs[0]:.2f} "
        f"({min(logs):.2f} to {max(logs):.2f} over the energy conventions)"
    )


def _tail_sentence(predictions: Predictions) -> str:
    below = [len(item.below_threshold) for item in predictions.items]
    limits = [item.threshold_count for item in predictions.items]
    return (
        f"it lies at {limits[0]:.3g} samples per class ({min(limits):.3g} to "
        f"{max(limits):.3g} over the energy conventions), and {below[0]} of "
        f"{len(predictions.class_counts)} classes are at or below it"
    )
