"""The tables of a report on clones: every number beside what it is held against."""

from __future__ import annotations

import math

from jaxtyping import Float64
from torch import Tensor

from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones import Estimate, dyadic_sizes
from layerpeel.measurement.clones.evidence.critical_width import CRITERIA
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.table import Cell, Table

# More widths than these are for the frame and the JSON.
_MOST_WIDTHS = 20

# Means by the header of their column; what a narrow terminal shows comes first.
_MEANS = {
    "raw error": "raw_error",
    "folded": "folded_error",
    "expected": "expected_error",
    "R^2": "r_squared",
    "residual corr.": "residual_correlation",
}
_SPREAD = ("raw error", "folded", "R^2", "residual corr.")


def width_table(evidence: CloneEvidence) -> Table:
    """Return errors, reconstruction and residual correlation by width of chunks."""
    profile = evidence.profile
    columns = _columns(profile)
    shown = _shown(profile, evidence)
    rows = tuple(
        (profile.widths[i], *(_cell(values[i]) for values in columns.values()))
        for i in shown
    )
    return Table(
        "Chunks by width", ("width", *columns), rows, _width_note(evidence, len(shown))
    )


def _columns(profile: CloneProfile) -> dict[str, Float64[Tensor, " m"]]:
    """Return the columns by their headers; errors only where there are any."""
    scored = profile.scored
    means, spreads = scored.means(profile.scope), scored.spreads(profile.scope)
    names = {
        title: name
        for title, name in _MEANS.items()
        if scored.has_errors or not name.endswith("error")
    }
    columns = {title: means[name] for title, name in names.items()}
    columns["noise floor"] = profile.floor
    if scored.has_errors:
        columns["rescaled"] = means["rescaled_error"]
    if profile.held_out is not None and profile.fitted.has_errors:
        columns["raw, training"] = profile.fitted.raw.nanmean(1)
    for title, name in names.items():
        if title in _SPREAD and profile.repeats > 1:
            columns[f"± {title}"] = spreads[name]
    return columns


def _cell(value: Tensor) -> Cell:
    """Leave a cell empty where the question does not arise, as for the whole layer."""
    number = float(value)
    return None if math.isnan(number) else number


def _shown(profile: CloneProfile, evidence: CloneEvidence) -> list[int]:
    """Return the places of the widths to show: all of them, or the dyadic ones."""
    places = range(len(profile.widths))
    if len(places) <= _MOST_WIDTHS:
        return list(places)
    answers = [answer.width for answer in evidence.critical.values()]
    wanted = {*dyadic_sizes(profile.width), *(w for w in answers if not math.isnan(w))}
    nearest = {min(places, key=lambda i: abs(profile.widths[i] - w)) for w in wanted}
    return sorted(nearest | {places[0], places[-1]})


def _width_note(evidence: CloneEvidence, shown: int) -> str:
    profile = evidence.profile
    where = f"on the {evidence.data} samples"
    whom = "outside of the chunk" if profile.scope == "complement" else "of the layer"
    said = [f"Means over {profile.repeats} chunks, {where}, ± one standard deviation."]
    if profile.scored.has_errors:
        said.append(
            "Raw: the classifier restricted to the chunk; rescaled: scaled by the share "
            "of neurons left out; folded: with the reconstruction of the others; expected: "
            "the raw error that drawing chunks at random implies."
        )
    said.append(
        f"R^2 and the mean absolute correlation of residuals are those of neurons {whom}; "
        "the noise floor is the correlation of independent residuals."
    )
    if shown < len(profile.widths):
        said.append(
            f"{shown} of {len(profile.widths)} widths are shown; `to_frame` and the JSON "
            "have all."
        )
    return " ".join(said)


def critical_table(evidence: CloneEvidence) -> Table:
    """Return the critical width by each criterion."""
    rows: list[tuple[Cell, ...]] = [
        (
            answer.criterion,
            f"{'>=' if answer.ascending else '<='} {answer.threshold:.4g}",
            None if math.isnan(answer.width) else int(answer.width),
            answer.below,
            _known(answer.clones),
            CRITERIA[answer.criterion],
        )
        for answer in evidence.critical.values()
    ]
    return Table(
        "Critical width by criterion",
        (
            "criterion",
            "threshold",
            "critical width",
            "not met at",
            "clones",
            "asks for",
        ),
        tuple(rows),
        note=(
            "The critical width is the narrowest one measured from which on a criterion "
            "stays met; the widest at which it is not met is the other end of what is "
            "known of it. A layer whose critical width is its own has no clones. The "
            "largest of all counts."
        ),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def claim_table(evidence: CloneEvidence) -> Table:
    """Return what is claimed of a layer of clones, and what survives its null."""
    rows = tuple(
        (claim.name, claim.survives, claim.evidence, claim.statement)
        for claim in evidence.claims.values()
    )
    return Table(
        "What survives its null",
        ("claim", "survives", "evidence", "says"),
        rows,
        note=(
            "– where it could not be judged. A claim survives if it is true, and what "
            "looks like it does not explain it."
        ),
    )


def law_table(evidence: CloneEvidence) -> Table:
    """Return the power law of the raw error; without rows where there is none."""
    law = evidence.law
    columns = ("parameter", "value", "from", "to")
    if law is None:
        return Table("Power law of the raw error", columns, (), evidence.no_law)
    parts = {
        "exponent b": law.exponent,
        "prefactor A": law.prefactor,
        "asymptote e": law.asymptote,
    }
    return Table(
        "Power law of the raw error",
        columns,
        tuple((name, *_ends(one)) for name, one in parts.items()),
        note=(
            f"e + A w^-b, fitted to the {len(law.widths)} widths {law.widths[0]} to "
            f"{law.widths[-1]} on {evidence.data} data; intervals of the profile "
            f"likelihood at {law.level:.0%}. Residuals have a root mean square of "
            f"{law.misfit:.3g} standard errors, or that error where chunks do not tell "
            "one. The fall alone is no evidence: chunks of any layer have it."
        ),
    )


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def narrower_table(evidence: CloneEvidence) -> Table:
    """Return how many neurons suffice for some tolerances, beside random ones."""
    found = list(evidence.narrower)
    if evidence.at_critical is not None:
        found = [evidence.at_critical, *found]
    judged = any(not math.isnan(one.errors[1]) for one in found)
    columns = ["tolerance", "neurons", "change", "random: change"]
    if judged:
        columns += ["error before", "error after", "random: error", "decided otherwise"]
    rows = []
    for one in found:
        row: list[Cell] = [
            _known(one.tolerance),
            one.width,
            one.change,
            _known(one.random_change),
        ]
        if judged and one.measured is not None:
            row += [*one.errors, _known(one.random_error), one.measured.decisions]
        rows.append(tuple(row))
    return Table(
        "Neurons that would do",
        tuple(columns),
        tuple(rows),
        _narrower_note(evidence, judged=judged),
    )


def _narrower_note(evidence: CloneEvidence, *, judged: bool) -> str:
    consumer = evidence.profile.consumer
    read = "the output of the map that reads the layer"
    whose = "the layer" if consumer is None else read
    draws = max((one.draws for one in evidence.narrower), default=0)
    beside = (
        f" Random: as many neurons selected uniformly, mean of {draws}."
        if draws
        else ""
    )
    critical = (
        ""
        if evidence.at_critical is None
        else " The row without a tolerance is that of the critical width."
    )
    errors = f" Errors are those on the {evidence.data} samples." if judged else ""
    return (
        "Neurons selected by pivots, each the best beside those before it, with the "
        f"linear reconstruction of the others folded in. The change is that of {whose}, "
        f"relative to its spread, on the training set.{beside}{errors} A tolerance of 0 "
        f"asks for no change but rounding.{critical}"
    )
