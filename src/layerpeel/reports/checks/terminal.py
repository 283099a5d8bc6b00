"""Checks of whether the network is where the theory applies: the terminal phase.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
"""

from __future__ import annotations

import math

from layerpeel._checks import listed
from layerpeel.reports import thresholds as limits
from layerpeel.reports.checks.check import Check, Evidence
from layerpeel.reports.finding import Outcome, Severity

ONE_SAMPLE = "every class has one sample, which is its own class mean"


def _ask_absent(check: Check[Evidence], evidence: Evidence) -> Outcome:
    measurement = evidence.measurement
    absent = [
        name
        for name, count in zip(
            measurement.class_names, measurement.class_counts, strict=True
        )
        if count == 0
    ]
    if not absent:
        return check.passed("Every class has samples.")
    return check.finding(
        Severity.WARNING,
        measured=(
            f"{len(absent)} of {measurement.num_classes} classes have no samples: "
            f"{listed(absent)}."
        ),
        threshold="Every class that the head can name needs at least one sample.",
        action=(
            "Measure on data that contains them, or give the head as many outputs as "
            "there are classes. What needs their means is undefined in this report."
        ),
    )


def _ask_scatter(check: Check[Evidence], evidence: Evidence) -> Outcome:
    if max(evidence.measurement.class_counts) == 1:
        return check.not_applicable(ONE_SAMPLE)
    quotient = evidence.measurement.nc1_quotient()
    if math.isnan(quotient):
        return check.not_applicable("fewer than two classes have samples")
    measured = f"Within-class scatter is {quotient:.3g} of between-class scatter."
    if quotient <= limits.SCATTER_QUOTIENT:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=(
            "A collapsed network has 0; above "
            f"{limits.SCATTER_QUOTIENT:g} the features still spread visibly."
        ),
        action=(
            "Read the predictions as a direction rather than as numbers, or train "
            "longer: until the regularised loss is stationary."
        ),
    )


def _ask_nearest_mean(check: Check[Evidence], evidence: Evidence) -> Outcome:
    if max(evidence.measurement.class_counts) == 1:
        return check.not_applicable(ONE_SAMPLE)
    nearest = evidence.measurement.nearest_mean
    if nearest is None:
        return check.not_applicable("NC4 was not measured")
    mismatch = nearest.mismatch
    if math.isnan(mismatch):
        return check.not_applicable("there are no samples to compare on")
    measured = (
        f"On {mismatch:.1%} of the samples the network and the nearest class mean "
        "choose different classes."
    )
    if mismatch <= limits.NEAREST_MEAN_MISMATCH:
        return check.passed(measured)
    return check.finding(
        Severity.NOTE,
        measured=measured,
        threshold=(
            "A collapsed network has 0; more than "
            f"{limits.NEAREST_MEAN_MISMATCH:.0%} counts."
        ),
        action=(
            "Look at the per-class recall: under imbalance the bias and the norms of "
            "the classifiers often overrule the class means."
        ),
    )


def _ask_vanished(check: Check[Evidence], evidence: Evidence) -> Outcome:
    logits = evidence.measurement.geometry().logits
    largest = float(logits.abs().nan_to_num().max())
    measured = f"The largest centred logit of a class mean is {largest:.3g}."
    if largest > limits.LOGIT_SPREAD:
        return check.passed(measured)
    return check.finding(
        Severity.PROBLEM,
        measured=measured,
        threshold=(
            f"Below {limits.LOGIT_SPREAD:g} all classes are about equally probable, "
            "whatever the input."
        ),
        action=(
            "Lower the weight decay, or look for what stops the last layer from "
            "learning: a zero initialisation, dead features, a learning rate of zero."
        ),
    )


def _ask_dead_units(check: Check[Evidence], evidence: Evidence) -> Outcome:
    measurement = evidence.measurement
    dead, width = len(measurement.dead_units), measurement.width
    share = dead / width
    measured = f"{dead} of {width} features are zero on every sample ({share:.0%})."
    if share <= limits.DEAD_UNITS_NOTE:
        return check.passed(measured)
    many = share > limits.DEAD_UNITS_WARNING
    return check.finding(
        Severity.WARNING if many else Severity.NOTE,
        measured=measured,
        threshold=(
            f"More than {limits.DEAD_UNITS_NOTE:.0%} is noted, more than "
            f"{limits.DEAD_UNITS_WARNING:.0%} is a warning."
        ),
        action=(
            "The layer could be narrower at no loss. If it was meant to use its width, "
            "lower the learning rate or the weight decay early in training."
        ),
    )


ABSENT = Check(
    code="LP004",
    title="Classes without samples",
    question="Does every class have samples?",
    source="Definition: a class mean needs a sample.",
    explanation=(
        "The number of classes is the number of outputs of the head. A class that the "
        "data never shows has no mean, so its cosines, its norm and its recall are "
        "undefined; everything else is computed over the classes that are there."
    ),
    ask=_ask_absent,
)

SCATTER = Check(
    code="LP005",
    title="Features have not collapsed",
    question="Have the features collapsed?",
    source="Convention of this package; collapsed value: Papyan et al. 2020 (NC1).",
    explanation=(
        "The solvable model says where the features end: every sample on its class "
        "mean. A network stopped earlier, or one whose weight decay leaves it unable to "
        "fit the data, keeps within-class scatter that the model does not describe."
    ),
    ask=_ask_scatter,
)

DEAD_UNITS = Check(
    code="LP006",
    title="Dead units in the last features",
    question="Are the units of the last features alive?",
    source="Convention of this package.",
    explanation=(
        "A unit that is zero on every sample adds nothing to any logit. Some dead units "
        "are normal with ReLU and weight decay."
    ),
    ask=_ask_dead_units,
)

NEAREST_MEAN = Check(
    code="LP007",
    title="The network and the nearest class mean disagree",
    question="Does the network decide for the nearest class mean?",
    source="Convention of this package; collapsed value: Papyan et al. 2020 (NC4).",
    explanation=(
        "In the terminal phase the classifier behaves like the nearest class mean. The "
        "network's own decision is used, bias included."
    ),
    ask=_ask_nearest_mean,
)

VANISHED = Check(
    code="LP010",
    title="The last layer tells no classes apart",
    question="Does the last layer tell classes apart?",
    source="Convention of this package.",
    explanation=(
        "With enough weight decay for its data a network is best off with no last layer "
        "at all: classifiers and features shrink to nothing, for balanced classes too. "
        "The last stage of the solvable model says the same. Cosines and other ratios "
        "of what is left are rounding."
    ),
    ask=_ask_vanished,
)
