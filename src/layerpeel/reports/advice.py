r"""How much to oversample, and how sure theory is of it.

In the Layer-Peeled Model, drawing each minority sample :math:`w` times as often divides
the imbalance :math:`R` by :math:`w`, exactly (Fang et al. 2021). Whether :math:`R` lies
beyond the collapse threshold :math:`R_0` is a poor guide on its own: well below it, the
minority classifiers have already drawn together. The advice is therefore the least rate
that brings the *predicted cosine* back to a stated target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from layerpeel.geometry import etf_cosine
from layerpeel.measurement import Measurement
from layerpeel.program import Oversampling, oversampling
from layerpeel.reports.causes import causes
from layerpeel.reports.prediction import Predictions

# Rates of more classes than this are named by attribute rather than spelled out.
MOST_CLASSES_SPELLED = 20


@dataclass(frozen=True)
class Advice:
    """An oversampling rate per class, with the reason for its size.

    Attributes:
        rates: How often each sample of a class is drawn per epoch, one entry per class.
        action: What to do, as a sentence.
        reason: Where the rate comes from and what it does not account for.
        by_convention: The least rate under each energy convention, rounded up; empty
            when there is no prediction.
        oversampling: The solved rate under the default convention, if there is one.
    """

    rates: tuple[int, ...]
    action: str
    reason: str
    by_convention: dict[str, int]
    oversampling: Oversampling | None = None

    @property
    def rate(self) -> int:
        """The largest rate, that of the minority where groups are oversampled."""
        return max(self.rates)

    @property
    def command(self) -> str:
        """The line of code that applies the rates."""
        rates = "report.advice.rates"
        if len(self.rates) <= MOST_CLASSES_SPELLED:
            rates = str(list(self.rates))
        return f"indices = lp.oversampled_indices(labels, rates={rates})"


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
    solved = _solve_all(predictions, len(measurement.groups.minority))
    if not solved:
        return _balancing(measurement, _why_unsolved(measurement, predictions))
    rates = {name: least.repeats for name, least in solved.items()}
    default = next(iter(solved.values()))
    if default.repeats == 1:
        reason = _unexplained(default)
        return _balancing(measurement, reason, rates, default)
    return Advice(
        rates=_minority_rates(measurement, default.repeats),
        action=(
            f"Oversample the minority classes {default.repeats} times: the least whole "
            f"rate that brings their predicted cosine to {default.target:+.3f}."
        ),
        reason=_steered(default, rates, predictions),
        by_convention=rates,
        oversampling=default,
    )


def _steered(
    default: Oversampling, rates: dict[str, int], predictions: Predictions
) -> str:
    before = default.predicted_cosine_before
    standing = (
        "predicts that the minority classifiers vanish"
        if math.isnan(before)
        else f"puts the mean cosine between minority classifiers at {before:+.3f}"
    )
    return (
        f"At the measured energies the peeled model {standing}; balanced training ends "
        f"at {etf_cosine(len(default.rates)):+.3f}, and the target is "
        f"{default.target:+.3f}. Drawing each minority sample {default.repeats} times "
        f"is predicted to reach {default.predicted_cosine_after:+.3f}. Over the ways to "
        "read the energies off the network, the least rate runs from "
        f"{min(rates.values())} to {max(rates.values())}. Retraining moves the energies, "
        "so measure again afterwards.\n\n"
        f"The collapse threshold alone would say: {threshold_sentence(predictions)}. "
        "R0 is exponential in the energies and marks complete collapse only, so it is "
        "not what the rate is chosen by."
    )


def _unexplained(default: Oversampling) -> str:
    return (
        "The peeled model, at the measured energies, already predicts a minority cosine "
        f"of {default.predicted_cosine_before:+.3f} and asks for no oversampling, so it "
        "does not explain what was measured. The rates are those that balance the "
        "classes."
    )


def _solve_all(predictions: Predictions, minority: int) -> dict[str, Oversampling]:
    if minority < 2:
        return {}
    with causes():  # a vanished minority is said in words
        return {
            item.convention: oversampling(predictions.class_counts, energy=item.energy)
            for item in predictions.items
            if item.solution.status.success
        }


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
    """Say where the imbalance stands against the collapse threshold, and how surely."""
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
