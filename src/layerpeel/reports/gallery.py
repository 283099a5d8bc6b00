"""Which pictures a report shows: what they are drawn from, and what they say in words."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from layerpeel.geometry import etf_cosine
from layerpeel.measurement import Measurement
from layerpeel.reports.picture import Picture
from layerpeel.reports.pictures import (
    class_accuracy,
    class_mean_projection,
    cosine_matrices,
    norms_against_counts,
)
from layerpeel.reports.prediction import Predictions


def report_pictures(
    measurement: Measurement, predictions: Predictions
) -> tuple[Picture, ...]:
    """Return the pictures of a report.

    Args:
        measurement: What was measured.
        predictions: What is drawn beside it.

    Returns:
        Cosines, norms, recall and features, in this order.
    """
    return (
        cosines_picture(measurement, predictions),
        norms_picture(measurement, predictions),
        accuracy_picture(measurement),
        projection_picture(measurement),
    )


def cosines_picture(measurement: Measurement, predictions: Predictions) -> Picture:
    """Return the classifier cosines, measured beside predicted."""
    shown = {"measured": measurement.geometry().classifier_cosines}
    default = predictions.default
    if default is not None:
        shown["predicted"] = default.geometry.classifier_cosines
    return Picture(
        name="cosines",
        title="Cosines between classifiers",
        caption=(
            "Colour says how far a pair of classes is from the balanced cosine "
            f"-1/(K-1) = {etf_cosine(measurement.num_classes):+.3f}, and to "
            "which side. In minority collapse the minority block turns to 1."
        ),
        alt=_cosines_alt(measurement, predictions),
        draw=partial(
            cosine_matrices, shown, measurement.class_names, measurement.groups
        ),
    )


def norms_picture(measurement: Measurement, predictions: Predictions) -> Picture:
    """Return the norms of classifiers and class means against the class counts."""
    measured = measurement.geometry()
    norms = {
        "classifier": measured.classifier_norms,
        "class mean": measured.feature_norms,
    }
    predicted: dict[str, Tensor] | None = None
    if predictions.default is not None:
        solved = predictions.default.geometry
        predicted = {
            "classifier": solved.classifier_norms,
            "class mean": solved.feature_norms,
        }
    ratio = _ratio_words(measurement)
    return Picture(
        name="norms",
        title="Norms against class counts",
        caption=(
            "Rare classes get shorter classifiers and shorter features. The predicted "
            "norms stand at the measured energies."
        ),
        alt=f"Norms of classifiers and of class means by class count. {ratio}",
        draw=partial(
            norms_against_counts,
            _counts(measurement),
            norms,
            predicted,
            measurement.class_names,
            measurement.groups.minority,
        ),
    )


def accuracy_picture(measurement: Measurement) -> Picture:
    """Return the recall of each class, on training and on held-out data."""
    shown = {"training": measurement.class_accuracy}
    if measurement.eval_confusion is not None:
        shown["held out"] = measurement.eval_confusion.class_accuracy
    return Picture(
        name="recall",
        title="Recall of each class",
        caption="The most frequent class is on top; overall accuracy hides the last rows.",
        alt=" ".join(_recall_words(name, shown[name], measurement) for name in shown),
        draw=partial(
            class_accuracy,
            shown,
            measurement.class_names,
            _counts(measurement),
            measurement.groups.minority,
        ),
    )


def projection_picture(measurement: Measurement) -> Picture:
    """Return the features projected onto the plane of the class means."""
    sample = measurement.sample
    means = measurement.moments.class_means
    return Picture(
        name="features",
        title="Features on the plane of the class means",
        caption=(
            "The first samples of each class, their class means, and the directions of "
            "the classifiers. A collapsed network puts every sample on its mean."
        ),
        alt=(
            "Features in the plane of the two leading directions of the class means. "
            f"Within-class scatter is {measurement.nc1_quotient():.3g} of between-class "
            "scatter."
        ),
        draw=partial(
            class_mean_projection,
            sample.features.double(),
            sample.labels,
            means,
            measurement.weight,
            measurement.class_names,
            measurement.groups.minority,
        ),
    )


def compared_pictures(
    names: tuple[str, str], first: Measurement, second: Measurement
) -> tuple[Picture, ...]:
    """Return the pictures that two measurements of the same classes share.

    Args:
        names: What the two are called.
        first: One measurement; its groups and counts order the classes.
        second: The other one.

    Returns:
        Cosines and recall, side by side.
    """
    both = dict(zip(names, (first, second), strict=True))
    recall = {name: _recall(measurement) for name, measurement in both.items()}
    return (
        Picture(
            name="compared-cosines",
            title="Cosines between classifiers",
            caption=(
                "Colour is centred on the balanced cosine "
                f"{etf_cosine(first.num_classes):+.3f}."
            ),
            alt=" ".join(f"{name}: {_block_words(m)}" for name, m in both.items()),
            draw=partial(
                cosine_matrices,
                {name: m.geometry().classifier_cosines for name, m in both.items()},
                first.class_names,
                first.groups,
            ),
        ),
        Picture(
            name="compared-recall",
            title="Recall of each class",
            caption=f"On {_recall_data(first, second)} data.",
            alt=" ".join(_recall_words(name, recall[name], first) for name in recall),
            draw=partial(
                class_accuracy,
                recall,
                first.class_names,
                _counts(first),
                first.groups.minority,
            ),
        ),
    )


def _counts(measurement: Measurement) -> Tensor:
    return torch.tensor(measurement.class_counts, dtype=torch.float64)


def _recall(measurement: Measurement) -> Tensor:
    held_out = measurement.eval_confusion
    return (held_out or measurement.confusion).class_accuracy


def _recall_data(first: Measurement, second: Measurement) -> str:
    kinds = ["held-out" if m.eval_confusion else "training" for m in (first, second)]
    return kinds[0] if kinds[0] == kinds[1] else " and ".join(kinds)


def _cosines_alt(measurement: Measurement, predictions: Predictions) -> str:
    said = (
        f"Matrix of cosines between classifiers. Measured: {_block_words(measurement)}"
    )
    default = predictions.default
    if default is None or math.isnan(default.minority_cosine):
        return said
    return f"{said} Predicted: {default.minority_cosine:+.3f}."


def _block_words(measurement: Measurement) -> str:
    groups = measurement.groups
    kind = "minority" if groups.minority else "all"
    cosine = measurement.geometry().block_cosine(groups.block)
    said = "undefined" if math.isnan(cosine) else f"{cosine:+.3f}"
    return f"mean cosine between {kind} classifiers {said}."


def _ratio_words(measurement: Measurement) -> str:
    ratio = measurement.classifier_block.norm_ratio
    if math.isnan(ratio):
        return ""
    return f"The majority classifiers are {ratio:.2f} times as long as the minority's."


def _recall_words(name: str, recall: Tensor, measurement: Measurement) -> str:
    minority = list(measurement.groups.minority)
    said = f"Mean recall, {name}: {float(recall.nanmean()):.1%}"
    if minority:
        said += f", minority {float(recall[minority].nanmean()):.1%}"
    return said + "."
