"""Checks of the minority block: collapse, recall and norms.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

import math

from layerpeel._checks import listed
from layerpeel._tolerances import VANISHED_NORM
from layerpeel.geometry import etf_cosine
from layerpeel.measurement import Measurement
from layerpeel.reports import thresholds as limits
from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.finding import Finding, Outcome, Severity

NOT_BY_COUNTS = (
    "The class counts leave nothing to oversample: gather or augment samples of these "
    "classes, and look at what else tells them from the others."
)
NO_MINORITY = "the class counts are balanced: there is no minority"


def _ask_cosine(check: Check[Evidence], evidence: Evidence) -> Outcome:
    measurement = evidence.measurement
    if measurement.groups.balanced:
        return check.not_applicable(NO_MINORITY)
    if len(measurement.groups.minority) < 2:
        return check.not_applicable("a single minority class has no pair to compare")
    cosine = measurement.classifier_block.cosine
    if math.isnan(cosine):
        return check.not_applicable(
            "a minority classifier has vanished or its class has no samples, so the "
            "cosine is undefined"
        )
    balanced = etf_cosine(measurement.num_classes)
    measured = (
        f"The classifiers of the {len(measurement.groups.minority)} minority classes "
        f"({_minority_named(measurement)}) have a "
        f"mean cosine of {cosine:+.3f}{_predicted_cosine(evidence)}."
    )
    if cosine <= balanced + limits.MINORITY_COSINE_MARGIN:
        return check.passed(measured)
    halfway = balanced + limits.MINORITY_COSINE_HALFWAY * (1 - balanced)
    return _oversample(
        check,
        evidence,
        Severity.PROBLEM if cosine >= halfway else Severity.WARNING,
        measured,
        threshold=(
            f"Balanced training ends at -1/(K-1) = {balanced:+.3f}; more than "
            f"{limits.MINORITY_COSINE_MARGIN:g} above it counts."
        ),
    )


def _ask_recall(check: Check[Evidence], evidence: Evidence) -> Outcome:
    measurement = evidence.measurement
    if measurement.groups.balanced:
        return check.not_applicable(NO_MINORITY)
    data, majority, minority = _recalls(measurement)
    if math.isnan(majority) or math.isnan(minority):
        return check.not_applicable(
            f"a group has no samples in the {data} data, so its recall is undefined"
        )
    measured = (
        f"On {data} data, mean recall is {majority:.1%} over the majority classes and "
        f"{minority:.1%} over the minority classes."
    )
    gap = majority - minority
    if gap <= limits.RECALL_GAP_WARNING:
        return check.passed(measured)
    severe = gap > limits.RECALL_GAP_PROBLEM
    return _oversample(
        check,
        evidence,
        Severity.PROBLEM if severe else Severity.WARNING,
        measured,
        threshold=(
            f"A gap above {limits.RECALL_GAP_WARNING:.0%} is a warning, above "
            f"{limits.RECALL_GAP_PROBLEM:.0%} a problem; overall accuracy hides it."
        ),
    )


def _ask_norms(check: Check[Evidence], evidence: Evidence) -> Outcome:
    measurement = evidence.measurement
    if measurement.groups.balanced:
        return check.not_applicable(NO_MINORITY)
    ratio = measurement.classifier_block.norm_ratio
    norms = measurement.geometry().classifier_norms
    shortest = float(norms[list(measurement.groups.minority)].max() / norms.max())
    if math.isnan(shortest):
        return check.not_applicable("all classifiers are equal: none has a length")
    if shortest <= VANISHED_NORM:
        return _oversample(
            check,
            evidence,
            Severity.PROBLEM,
            "The minority classifiers have vanished: their norm is rounding.",
            threshold=f"A norm below {VANISHED_NORM:g} of the longest has no direction.",
        )
    if math.isnan(ratio):
        return check.not_applicable("there is no majority to compare with")
    measured = (
        "The majority classifiers are on average "
        f"{ratio:.2f} times as long as the minority classifiers."
    )
    if ratio <= limits.NORM_RATIO:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=f"Balanced training ends at 1; more than {limits.NORM_RATIO:g} counts.",
        action=(
            "Expect logits that favour the majority. Oversampling restores the norms; "
            "so does normalising the classifiers, which does not part directions that "
            "have drawn together."
        ),
    )


def _recalls(measurement: Measurement) -> tuple[str, float, float]:
    """Prefer held-out recall: training recall can be perfect on memorised samples."""
    if measurement.eval_confusion is not None:
        confusion, data = measurement.eval_confusion, "held-out"
    else:
        confusion, data = measurement.confusion, "training"
    groups = measurement.groups
    return (
        data,
        confusion.group_recall(groups.majority),
        confusion.group_recall(groups.minority),
    )


def _minority_named(measurement: Measurement) -> str:
    names = [measurement.class_names[k] for k in measurement.groups.minority]
    return listed(names, most=6)


def _predicted_cosine(evidence: Evidence) -> str:
    default = evidence.predictions.default
    if default is None or math.isnan(default.minority_cosine):
        return ""
    spread = evidence.predictions.cosines
    return (
        f"; the peeled model at the measured energies puts it at "
        f"{default.minority_cosine:+.3f} ({min(spread):+.3f} to {max(spread):+.3f} over "
        "the energy conventions)"
    )


def _oversample(
    check: Check[Evidence],
    evidence: Evidence,
    severity: Severity,
    measured: str,
    threshold: str,
) -> Finding:
    """Return a finding whose action is the advised oversampling."""
    advice = evidence.advice
    return check.finding(
        severity,
        measured=measured,
        threshold=threshold,
        action=advice.action if advice else NOT_BY_COUNTS,
        command=advice.command if advice else "",
    )


COSINE = Check(
    code="LP001",
    title="Minority classifiers have drawn together",
    question="Are the minority classifiers apart?",
    source=(
        "Balanced value: Fang et al. 2021 (arXiv 2101.12699). "
        "Margin: convention of this package."
    ),
    explanation=(
        "With K classes of equal frequency the last layer ends in a simplex equiangular "
        "tight frame: all pairs of classifiers have cosine -1/(K-1). When some classes "
        "are rare, the exactly solvable model of the last layer moves their classifiers "
        "towards each other as the imbalance R grows, and beyond a threshold R0 they "
        "coincide (minority collapse): the network can then not tell these classes "
        "apart. In a long tail of distinct counts, classes pass the threshold one by "
        "one; those below it have classifiers that lie close together and span fewer "
        "dimensions than there are classes, without being equal. The threshold is "
        "exponential in the norms of the features and classifiers, so it is reported as "
        "log R0, or as a count in a long tail, with its range over the ways to read "
        "those norms; damage starts well below it. The finding rests on the measured "
        "cosine alone. A raised cosine can also come from classes that really look alike."
    ),
    ask=_ask_cosine,
)

RECALL = Check(
    code="LP002",
    title="Minority classes are recognised less often",
    question="Are minority classes recognised as often?",
    source="Convention of this package.",
    explanation=(
        "Recall averaged over the classes of a group does not depend on how many "
        "samples each class has, so frequent classes cannot hide rare ones. Where "
        "held-out data was given it is used, since rare classes are easily memorised."
    ),
    ask=_ask_recall,
)

NORMS = Check(
    code="LP003",
    title="Minority classifiers are shorter",
    question="Are minority classifiers as long as the others?",
    source="Convention of this package.",
    explanation=(
        "Under imbalance both the classifiers and the features of rare classes shrink. "
        "The solvable model gives the ratio for its optimum; networks in the middle of "
        "training usually show a larger one."
    ),
    ask=_ask_norms,
)
