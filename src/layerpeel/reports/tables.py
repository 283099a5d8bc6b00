"""The tables of a report: what was measured, beside what theory predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from layerpeel._checks import listed
from layerpeel.geometry import block_mean, etf_cosine
from layerpeel.measurement import ENERGY_CONVENTIONS, LayerProfile, Measurement
from layerpeel.reports.candidates import VARIANTS_TITLE
from layerpeel.reports.checks import Evidence
from layerpeel.reports.prediction import Prediction
from layerpeel.reports.table import Cell, Table


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
    rows: list[tuple[Cell, ...]] = [("classes", *(len(g) for g in split))]
    rows += [
        (name, *(mean(values, g) for g in split))
        for name, mean, values in _group_quantities(evidence)
    ]
    balanced = etf_cosine(measurement.num_classes)
    return Table(
        "The classes" if groups.balanced else "Majority and minority",
        columns,
        tuple(rows),
        note=(
            "Classifiers are centred by their mean row, class means by the mean sample, "
            "measured and predicted alike. The cosine of balanced training is -1/(K-1) = "
            f"{balanced:+.4f}. Recall and norms are averaged over classes that have them."
        ),
    )


def _group_quantities(
    evidence: Evidence,
) -> Iterator[tuple[str, Callable[[Tensor, Sequence[int]], float], Tensor]]:
    """Yield names, how to average over a group, and the values."""
    measurement = evidence.measurement
    yield "mean count", _mean, measurement.moments.count
    yield "training recall", _mean, measurement.class_accuracy
    if measurement.eval_confusion is not None:
        yield "held-out recall", _mean, measurement.eval_confusion.class_accuracy
    geometries = {"": measurement.geometry()}
    if evidence.predictions.default is not None:
        geometries["predicted "] = evidence.predictions.default.geometry
    for kind, geometry in geometries.items():
        yield f"{kind}classifier norm", _mean, geometry.classifier_norms
        yield f"{kind}class-mean norm", _mean, geometry.feature_norms
        yield f"{kind}classifier cosine", block_mean, geometry.classifier_cosines
        yield f"{kind}class-mean cosine", block_mean, geometry.feature_cosines


def prediction_table(evidence: Evidence) -> Table:
    """Return the prediction under every energy convention."""
    rates = evidence.advice.by_convention if evidence.advice else {}
    tail = evidence.predictions.tail
    threshold = ("collapse at", "classes below") if tail else ("log R0",)
    rows = tuple(
        (
            _spaced(item.convention),
            item.energy.classifiers,
            item.energy.features,
            *_threshold_cells(item, tail),
            item.minority_cosine,
            rates.get(item.convention),
        )
        for item in evidence.predictions.items
    )
    return Table(
        "The peeled model at the measured energies",
        ("energies read as", "E_W", "E_H", *threshold, "cosine", "least rate"),
        rows,
        note=_prediction_note(evidence),
    )


def _threshold_cells(item: Prediction, tail: bool) -> tuple[Cell, ...]:
    """A long tail has no ratio R0: classes collapse one by one, by their counts."""
    if tail:
        return item.threshold_count, len(item.below_threshold)
    return (item.log_threshold,)


def distance_table(evidence: Evidence) -> Table:
    """Return the distance of the network to each prediction and to the plain ETF."""
    predictions = evidence.predictions
    rows: list[tuple[Cell, ...]] = [
        (
            _spaced(item.convention),
            item.distance.classifier_gram,
            item.distance.feature_gram,
            item.solution.certificate.gap,
        )
        for item in predictions.items
    ]
    etf = predictions.etf_distance
    rows.append(("plain ETF", etf.classifier_gram, etf.feature_gram, None))
    return Table(
        "Distance of the network to each prediction",
        ("prediction", "classifiers", "class means", "gap"),
        tuple(rows),
        note=(
            "Between Gram matrices of unit Frobenius norm, both centred as the energies "
            "are read: 0 is equal. The row of the ETF, which knows no counts, is the one "
            "to beat. The gap is that of the solved program to an evaluated lower bound, "
            "relative to its objective."
        ),
    )


def candidate_table(evidence: Evidence) -> Table:
    """Return the variants of the program beside the network, or why there are none."""
    if evidence.candidates is not None:
        return evidence.candidates.table()
    alike = (
        "Balanced classes end in the simplex ETF, and two classes opposite each other, "
        "in every variant."
    )
    return Table(VARIANTS_TITLE, ("variant",), (), evidence.predictions.reason or alike)


def _spaced(convention: str) -> str:
    return convention.replace("_", " ")


def _prediction_note(evidence: Evidence) -> str:
    predictions = evidence.predictions
    if predictions.solved is None:
        return f"No prediction: {predictions.reason}"
    ways = "; ".join(
        f"{_spaced(name)}: {text}" for name, text in ENERGY_CONVENTIONS.items()
    )
    said = _cosine_words(evidence)
    return f"{said} {predictions.solved.note} Energies, {ways}."


def _cosine_words(evidence: Evidence) -> str:
    """Say which cosine the table shows, and what stands beside it."""
    imbalance = evidence.predictions.imbalance
    if evidence.measurement.groups.balanced:
        return "The cosine is that between all classifiers."
    if not evidence.predictions.tail:
        return (
            f"The cosine is that of the minority. R = {imbalance:.4g}, log R = "
            f"{math.log(imbalance):.2f}."
        )
    return (
        "The cosine is that of the minority; the least rate is that of the rarest "
        'class. Classes with at most the samples under "collapse at" are below the '
        "collapse threshold: their classifiers lie close together and span fewer "
        "dimensions than there are classes. They are equal only where the counts are."
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


def layers_table(profile: LayerProfile) -> Table:
    """Return one row per layer, in the order of execution."""
    columns = {
        "layer": "path",
        "kind": "kind",
        "width": "width",
        "NC1": "nc1_quotient",
        "CDNV": "cdnv",
        "rank": "numerical_rank",
        "linear": "linearity",
        "on/off": "on_off_entropy",
        "dead": "dead_units",
    }
    layers = profile.to_dict()["layers"]
    note = (
        "NC1 is the quotient tr S_W / tr S_B. For elementwise nonlinearities: linear, the "
        "least correlation of input and output over units; on/off, the mean entropy in "
        "bits; and units that are always zero."
    )
    if profile.left_out:
        note += f" Left out: {listed(profile.left_out)}."
    return Table(
        "Layer by layer",
        tuple(columns),
        tuple(tuple(layer[key] for key in columns.values()) for layer in layers),
        note=note,
    )


def class_table(measurement: Measurement) -> Table:
    """Return one row per class, rarest first."""
    counts = measurement.class_counts
    order = sorted(range(measurement.num_classes), key=lambda k: counts[k])
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
    return Table("Class by class", tuple(columns), rows)


def _mean(values: Tensor, classes: Sequence[int]) -> float:
    return float(values[list(classes)].nanmean())
