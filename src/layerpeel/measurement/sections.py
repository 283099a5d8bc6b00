"""A measurement as nested sections of numbers and names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from layerpeel.geometry.geometry import MOST_MATRIX_CLASSES
from layerpeel.measurement.collapse_metrics import VECTORS
from layerpeel.measurement.layer_metrics import LayerMetrics
from layerpeel.measurement.metrics.energies import ENERGY_CONVENTIONS
from layerpeel.measurement.metrics.frame_distance import FRAMES
from layerpeel.measurement.metrics.kernels import KERNELS
from layerpeel.measurement.metrics.margins import MARGINS
from layerpeel.measurement.metrics.nc3 import NORMALISATIONS
from layerpeel.measurement.observation import Observation


def sections(measured: LayerMetrics) -> dict[str, Any]:
    """Return everything that is a number or a name, by section.

    Numbers are those of the default conventions, and of the alternatives that have a
    name. What takes :math:`K^2` numbers or a problem per class is left out, as ``None``,
    beyond ``MOST_MATRIX_CLASSES`` classes: its method gives it.

    Args:
        measured: The measurement.
    """
    return {
        **_names(measured),
        "loss": measured.loss,
        "accuracy": _accuracies(measured),
        "recall": _recalls(measured),
        "nc1": _nc1(measured),
        "nc2": {of: _nc2(measured, of) for of in VECTORS},
        "nc3": measured.nc3(),
        "duality": _duality(measured),
        "nc4": _nc4(measured),
        "bias": _bias(measured),
        "margins": {unit: measured.class_margins(unit) for unit in MARGINS},
        "kernels": {of: _kernels(measured, of) for of in VECTORS},
        "ranks": {of: asdict(measured.ranks(of)) for of in VECTORS},
        "one_vs_rest": {of: _one_vs_rest(measured, of) for of in VECTORS},
        "angles": {frame: _angles(measured, frame) for frame in FRAMES},
        "minority": {
            "classifiers": asdict(measured.classifier_block),
            "class_means": asdict(measured.feature_block),
        },
        "units": {"dead": measured.dead_units, "constant": measured.constant_units},
        "energies": {name: measured.energy(name) for name in ENERGY_CONVENTIONS},
        "layers": None if measured.profile is None else measured.profile.to_dict(),
    }


def _names(seen: Observation) -> dict[str, Any]:
    return {
        "num_classes": seen.num_classes,
        "num_samples": seen.num_samples,
        "width": seen.width,
        "head": seen.head,
        "class_names": seen.class_names,
        "class_counts": seen.class_counts,
        "groups": asdict(seen.groups),
    }


def _accuracies(seen: Observation) -> dict[str, Any]:
    return {
        "overall": seen.accuracy,
        "majority": seen.majority_accuracy,
        "minority": seen.minority_accuracy,
        "classes": seen.class_accuracy,
        "eval_overall": seen.eval_accuracy,
        "eval_majority": seen.eval_majority_accuracy,
        "eval_minority": seen.eval_minority_accuracy,
        "eval_classes": seen.eval_class_accuracy,
    }


def _recalls(seen: Observation) -> dict[str, float]:
    """Recall averaged over the classes of a group; accuracies weigh by samples."""
    data = {"": seen.confusion, "eval_": seen.eval_confusion}
    return {
        f"{prefix}{group}": confusion.group_recall(getattr(seen.groups, group))
        for prefix, confusion in data.items()
        if confusion is not None
        for group in ("majority", "minority")
    }


def _nc1(measured: LayerMetrics) -> dict[str, float]:
    return {
        "ratio": measured.nc1(),
        "ratio_class_averaged": measured.nc1(pooling="class"),
        "quotient": measured.nc1_quotient(),
        "quotient_class_averaged": measured.nc1_quotient(pooling="class"),
        "cdnv": measured.cdnv(),
    }


def _nc2(measured: LayerMetrics, of: str) -> dict[str, float]:
    classifiers = of == "classifiers"
    etf = measured.nc2_classifiers() if classifiers else measured.nc2_means()
    return {
        **asdict(etf),
        "orthogonal": measured.orthogonal_distance(of),
        "general_orthogonal": measured.general_orthogonal_distance(of),
    }


def _duality(measured: LayerMetrics) -> dict[str, Any]:
    return {
        **{name: measured.nc3(normalisation=name) for name in NORMALISATIONS},
        "raw": measured.nc3("none", centred=False),
        "raw_rows": measured.nc3("none", centred=False, normalisation="rows"),
        "product": {frame: measured.nc3_product(frame) for frame in FRAMES},
        "cosines": measured.duality_cosines(),
        "principal_angle": _principal_angle(measured),
    }


def _principal_angle(measured: LayerMetrics) -> float | None:
    """The largest one; of thousands of classes it takes minutes."""
    if measured.num_classes > MOST_MATRIX_CLASSES:
        return None
    return float(measured.principal_angles().max())


def _nc4(seen: LayerMetrics) -> dict[str, Any]:
    nearest = seen.nearest_mean
    return {
        "agreement": seen.nc4(),
        "class_agreement": nearest and nearest.class_agreement,
        "against": nearest and nearest.against,
    }


def _bias(measured: LayerMetrics) -> dict[str, float]:
    return {
        "distance": measured.bias_distance(),
        "distance_centred": measured.bias_distance(centred=True),
    }


def _kernels(measured: LayerMetrics, of: str) -> dict[str, Any]:
    return {name: asdict(measured.kernel_energy(of, name)) for name in KERNELS}


def _one_vs_rest(measured: LayerMetrics, of: str) -> Any:  # noqa: ANN401 - a tensor or None
    if measured.num_classes > MOST_MATRIX_CLASSES:
        return None
    return measured.one_vs_rest(of)


def _angles(measured: LayerMetrics, frame: str) -> dict[str, Any] | None:
    """Angles against a frame, centred as its vectors are."""
    if not 2 <= measured.num_classes <= MOST_MATRIX_CLASSES:
        return None
    if frame == "simplex":
        return dict(vars(measured.angles(frame)))
    return dict(vars(measured.angles(frame, "none", centred=False)))
