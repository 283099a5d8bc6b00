"""Checks of the theory itself: does it describe this network, and how surely?"""

from __future__ import annotations

import math

from layerpeel.reports import thresholds as limits
from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.finding import Outcome, Severity


def _ask_fit(check: Check[Evidence], evidence: Evidence) -> Outcome:
    default = evidence.predictions.default
    if default is None:
        return check.not_applicable(evidence.predictions.reason)
    if evidence.measurement.groups.balanced:
        return check.not_applicable("for balanced classes the prediction is the ETF")
    if evidence.measurement.num_classes == 2:
        return check.not_applicable("two centred classifiers are always opposite")
    ours = default.distance.classifier_gram
    etf = evidence.predictions.etf_distance.classifier_gram
    if math.isnan(ours) or math.isnan(etf):
        return check.not_applicable("the classifiers have no geometry to compare")
    measured = (
        "The measured classifier Gram matrix is at distance "
        f"{ours:.3f} from the prediction and {etf:.3f} from the plain simplex ETF."
        f"{_nearest_variant(evidence)}"
    )
    if ours < etf:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold="A useful prediction is nearer than the ETF, which knows no counts.",
        action=(
            "Trust the measurements above; take predicted numbers as a starting point, "
            "and measure again after retraining."
        ),
    )


def _nearest_variant(evidence: Evidence) -> str:
    """Name the variant of the program that is nearest."""
    if evidence.candidates is None:
        return ""
    nearest = evidence.candidates.nearest()
    return (
        " In the table of variants, classifiers and class means together, the nearest is "
        f"{nearest.name} at {nearest.gram:.3f}."
    )


def _ask_convention(check: Check[Evidence], evidence: Evidence) -> Outcome:
    cosines = evidence.predictions.cosines
    if evidence.measurement.groups.balanced:
        return check.not_applicable("for balanced classes the prediction is the ETF")
    if not cosines:
        reason = evidence.predictions.reason or "no minority cosine is predicted"
        return check.not_applicable(reason)
    low, high = min(cosines), max(cosines)
    measured = (
        "Over the ways to read the energies off the network, the predicted minority "
        f"cosine runs from {low:+.3f} to {high:+.3f}."
    )
    if high - low <= limits.CONVENTION_SPREAD:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=f"A spread above {limits.CONVENTION_SPREAD:g} matters.",
        action=(
            "Read the table of predictions: the default is the authors' own measure, "
            "which counts the within-class scatter into the feature energy."
        ),
    )


FIT = Check(
    code="LP008",
    title="The prediction is no nearer than the plain ETF",
    question="Is the prediction nearer than the plain ETF?",
    source="Normalised Gram distance: Dang et al. 2023 (arXiv 2301.00437).",
    explanation=(
        "The peeled model has one optimum for given class counts and energies. A "
        "network that is not at a minimum, is not collapsed, or has nonnegative "
        "features and a bias can be elsewhere; then the frame that ignores the counts "
        "can be as good a description. The prediction is the Layer-Peeled Model with "
        "free features; the table of variants says whether one with weight decay per "
        "sample, nonnegative features or a bias is nearer. None is nearest to every "
        "network."
    ),
    ask=_ask_fit,
)

CONVENTION = Check(
    code="LP009",
    title="The prediction depends on the energy convention",
    question="Is the prediction independent of the energy convention?",
    source="Convention of this package.",
    explanation=(
        "The energies E_W and E_H enter the predictions exponentially. Whether features "
        "are centred, about which mean, and whether within-class scatter counts, can "
        "move them by more than training does."
    ),
    ask=_ask_convention,
)
