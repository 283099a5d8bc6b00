"""The tables of a report: what was measured, beside what theory predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from layerpeel.geometry import off_diagonal_mean
from layerpeel.measurement import ENERGY_CONVENTIONS, Measurement
from layerpeel.reports import thresholds as limits
from layerpeel.reports.checks import Evidence
from layerpeel.reports.table import Cell, Table

# Longer tables of classes show the rarest classes only.
MOST_CLASS_ROWS = 100


def network_table(measurement: Measurement) -> Table:
    """Return what was measured on: sizes, counts, accuracy and loss."""
    rows: list[tuple[Cell, ...]] = [
        ("samples", measurement.num_samples),
        ("classes", measurement.num_classes),
        ("features (width of the last layer)", measurement.width),
        ("classifier head", measurement.head or "the model itself"),
        ("training accuracy", measurement.accuracy),
        ("training cross-entropy (nats)", measurement.loss),
    ]
    if measurement.eval_confusion is not None:
        rows.append(("held-out accuracy", measurement.eval_accuracy))
    return Table("The network and its data", ("", "value"), tuple(rows))


def group_table(evidence: Evidence) -> Table:
    """Return majority beside minority: counts, recall, norms, cosines."""
    measurement = evidence.measurement
    groups = measurement.groups
    columns: tuple[str, ...] = ("", "majority", "minority")
    split: tuple[tuple[int, ...], ...] = (groups.majority, groups.minority)
    if groups.balanced:
        columns, split = ("", "all classes"), (groups.majority,)
    geometry = measurement.geometry()
    counts = measurement.moments.count
    rows: list[tuple[Cell, ...]] = [
        ("classes", *(len(g) for g in split)),
        ("mean count", *(_mean(counts, g) for g in split)),
        ("training recall", *(_mean(measurement.class_accuracy, g) for g in split)),
    ]
    if measurement.eval_confusion is not None:
        recall = measurement.eval_confusion.class_accuracy
        rows.append(("held-out recall", *(_mean(recall, g) for g in split)))
    rows += [
        ("classifier norm", *(_mean(geometry.classifier_norms, g) for g in split)),
        ("class-mean norm", *(_mean(geometry.feature_norms, g) for g in split)),
        ("classifier cosine", *(_block(geometry.classifier_cosines, g) for g in split)),
        ("class-mean cosine", *(_block(geometry.feature_cosines, g) for g in split)),
    ]
    default = evidence.predictions.default
    if default is not None:
        predicted = default.solution.geometry
        rows += [
            (
                "predicted classifier norm",
                *(_mean(predicted.classifier_norms, g) for g in split),
            ),
            (
                "predicted classifier cosine",
                *(_block(predicted.classifier_cosines, g) for g in split),
            ),
        ]
    balanced = limits.balanced_cosine(measurement.num_classes)
    return Table(
        "Majority and minority" if len(split) == 2 else "The classes",
        columns,
        tuple(rows),
        note=(
            "Classifiers are centred by their mean row, class means by the mean sample. "
            f"The cosine of balanced training is -1/(K-1) = {balanced:+.4f}."
        ),
    )


def prediction_table(evidence: Evidence) -> Table:
    """Return the prediction under every energy convention, and the plain ETF."""
    predictions = evidence.predictions
    rates = evidence.advice.by_convention if evidence.advice else {}
    rows: list[tuple[Cell, ...]] = [
        (
            item.convention.replace("_", " "),
            item.energy.classifiers,
            item.energy.features,
            item.log_threshold,
            item.minority_cosine,
            rates.get(item.convention),
            item.distance.classifier_gram,
            item.distance.feature_gram,
        )
        for item in predictions.items
    ]
    etf = predictions.etf_distance
    balanced = limits.balanced_cosine(evidence.measurement.num_classes)
    rows.append(
        (
            "plain simplex ETF",
            None,
            None,
            None,
            balanced,
            None,
            etf.classifier_gram,
            etf.feature_gram,
        )
    )
    return Table(
        "The peeled model at the measured energies",
        (
            "energies read as",
            "E_W",
            "E_H",
            "log R0",
            "predicted cosine",
            "least rate",
            "classifier distance",
            "class-mean distance",
        ),
        tuple(rows),
        note=_prediction_note(evidence),
    )


def _prediction_note(evidence: Evidence) -> str:
    predictions = evidence.predictions
    if predictions.default is None:
        return f"No prediction: {predictions.reason}"
    groups = evidence.measurement.groups
    said = (
        f"R = {predictions.imbalance:.4g}, log R = {math.log(predictions.imbalance):.2f}. "
        if not groups.balanced
        else ""
    )
    ways = "; ".join(
        f"{name.replace('_', ' ')}: {text}" for name, text in ENERGY_CONVENTIONS.items()
    )
    return (
        f"{said}Each group of classes is solved at its mean count. Distances are between "
        "Gram matrices of unit Frobenius norm, measured against predicted: 0 is equal, "
        "and the row of the ETF, which knows no counts, is the one to beat. "
        f"Conventions: {ways}."
    )


def collapse_table(measurement: Measurement) -> Table:
    """Return NC1 to NC4, each beside what a collapsed network gives."""
    weights, means = measurement.nc2_classifiers(), measurement.nc2_means()
    rows: tuple[tuple[Cell, ...], ...] = (
        ("NC1", "trace ratio tr(S_W S_B⁺)/K", measurement.nc1(), 0),
        ("NC1", "quotient tr S_W / tr S_B", measurement.nc1_quotient(), 0),
        ("NC1", "class-distance normalised variance", measurement.cdnv(), 0),
        ("NC2", "classifiers: spread of norms", weights.equinorm, 0),
        ("NC2", "classifiers: spread of cosines", weights.equiangularity, 0),
        ("NC2", "classifiers: distance to widest angles", weights.angle, 0),
        ("NC2", "class means: spread of norms", means.equinorm, 0),
        ("NC2", "class means: spread of cosines", means.equiangularity, 0),
        ("NC2", "class means: distance to widest angles", means.angle, 0),
        ("NC3", "self-duality ‖W/‖W‖ - M/‖M‖‖", measurement.nc3(), 0),
        ("NC4", "agreement with nearest class mean", measurement.nc4(), 1),
    )
    return Table(
        "Neural collapse",
        ("", "metric", "measured", "collapsed"),
        rows,
        note=(
            "Papyan, Han & Donoho 2020 (arXiv 2008.08186). Within-class scatter is "
            "pooled over samples, means are centred by the mean sample, classifiers by "
            "their mean row; the collapsed values of NC2 are those of balanced training."
        ),
    )


def class_table(measurement: Measurement) -> Table:
    """Return one row per class, rarest first."""
    order = class_order(measurement)[:MOST_CLASS_ROWS]
    geometry = measurement.geometry()
    held_out = measurement.eval_confusion
    columns = ["class", "samples", "training recall"]
    series: list[Sequence[int | float]] = [
        measurement.class_counts,
        measurement.class_accuracy.tolist(),
    ]
    if held_out is not None:
        columns.append("held-out recall")
        series.append(held_out.class_accuracy.tolist())
    columns += ["classifier norm", "class-mean norm"]
    series += [geometry.classifier_norms.tolist(), geometry.feature_norms.tolist()]
    rows = tuple(
        (measurement.class_names[k], *(values[k] for values in series)) for k in order
    )
    left_out = measurement.num_classes - len(order)
    return Table(
        "Class by class",
        tuple(columns),
        rows,
        note=f"The {left_out} most frequent classes are left out." if left_out else "",
    )


def class_order(measurement: Measurement) -> list[int]:
    """Return the classes from rare to frequent."""
    counts = measurement.class_counts
    return sorted(range(measurement.num_classes), key=lambda k: counts[k])


def _mean(values: Tensor, classes: Sequence[int]) -> float:
    return float(values[list(classes)].double().mean())


def _block(cosines: Tensor, classes: Sequence[int]) -> float:
    return off_diagonal_mean(cosines[list(classes)][:, list(classes)])
