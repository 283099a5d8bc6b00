"""The numbers that are worth a curve, by name.

Conventions are the defaults of :class:`~layerpeel.Measurement`: the global
mean over samples, the pooled within-class covariance, centred classifiers. A function
of the measurement takes the place of a name where another convention is wanted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import UndefinedWarning, one_of, undefined
from layerpeel._warnings import warn
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.metrics.cdnv import cdnv
from layerpeel.measurement.metrics.nc1 import nc1, nc1_quotient, within_variance
from layerpeel.measurement.metrics.nc2 import nc2
from layerpeel.measurement.metrics.nc3 import nc3
from layerpeel.measurement.metrics.resolution import resolution, resolved_means
from layerpeel.measurement.statistics.conventions import row_centred
from layerpeel.measurement.statistics.moments import ClassMoments

T = TypeVar("T")

OfMoments: TypeAlias = Callable[[ClassMoments], float]
OfWeight: TypeAlias = Callable[[ClassMoments, Tensor], float]
OfMeasurement: TypeAlias = Callable[[Measurement], float]


def _nc1(moments: ClassMoments) -> float:
    if moments.scatter is None:
        return undefined(
            "NC1 is undefined (NaN): light mode keeps no within-class scatter. Use "
            "`nc1_quotient`, or leave `light` out."
        )
    within = moments.scatter / moments.num_samples
    return nc1(within, resolved_means(moments), resolution=resolution(moments))


def _nc1_quotient(moments: ClassMoments) -> float:
    return nc1_quotient(within_variance(moments), resolved_means(moments))


def _cdnv(moments: ClassMoments) -> float:
    means, variances = moments.class_means, moments.class_variances
    return cdnv(means, variances, resolution=resolution(moments))


def _means(part: str) -> OfMoments:
    return lambda moments: float(getattr(nc2(resolved_means(moments)), part))


def _classifiers(part: str) -> OfWeight:
    return lambda _, weight: float(getattr(nc2(row_centred(weight)), part))


def _nc3(moments: ClassMoments, weight: Tensor) -> float:
    return nc3(row_centred(weight), resolved_means(moments))


_PARTS = ("equinorm", "equiangularity", "angle", "gram")

_OF_MOMENTS: dict[str, OfMoments] = {
    "nc1": _nc1,
    "nc1_quotient": _nc1_quotient,
    "cdnv": _cdnv,
    **{f"nc2_means_{part}": _means(part) for part in _PARTS},
}
_OF_WEIGHT: dict[str, OfWeight] = {
    **{f"nc2_classifiers_{part}": _classifiers(part) for part in _PARTS},
    "nc3": _nc3,
}

MOMENT_SCALARS: tuple[str, ...] = (*_OF_MOMENTS, *_OF_WEIGHT)
"""Names of what class moments and classifiers tell, without a second look at the data."""

_OF_MEASUREMENT: dict[str, OfMeasurement] = {
    "nc4": lambda m: m.nc4(),
    "loss": lambda m: m.loss,
    "accuracy": lambda m: m.accuracy,
    "majority_accuracy": lambda m: m.majority_accuracy,
    "minority_accuracy": lambda m: m.minority_accuracy,
    "majority_cosine": lambda m: m.majority_cosine,
    "minority_cosine": lambda m: m.minority_cosine,
    "energy_w": lambda m: m.energy()[0],
    "energy_h": lambda m: m.energy()[1],
}
_OF_EVALUATION: dict[str, OfMeasurement] = {
    "eval_accuracy": lambda m: m.eval_accuracy,
    "eval_majority_accuracy": lambda m: m.eval_majority_accuracy,
    "eval_minority_accuracy": lambda m: m.eval_minority_accuracy,
}

MEASURED_SCALARS: tuple[str, ...] = (
    *MOMENT_SCALARS,
    *_OF_MEASUREMENT,
    *_OF_EVALUATION,
)
"""Names of what a measurement tells."""

_OF_LAYERS = ("nc1_quotient", "cdnv", "numerical_rank")

_DEFAULT = ("nc1", "nc1_quotient", "cdnv", "nc2_means_equinorm", "nc2_means_angle")
_DEFAULT_OF_WEIGHT = ("nc2_classifiers_equinorm", "nc2_classifiers_angle", "nc3")
_DEFAULT_MEASURED = ("nc4", "loss", "accuracy")


def moment_scalars(
    moments: ClassMoments,
    weight: Float64[Tensor, "K d"] | None,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return scalars of class moments and classifiers.

    Args:
        moments: Moments of the features.
        weight: Classifiers, with shape :math:`(K, d)`, if there are any.
        names: Which of ``MOMENT_SCALARS``; all that can be told when omitted.

    Returns:
        The values by name; NaN with a warning where undefined.

    Raises:
        ValueError: If a name is unknown, or needs the classifiers and there are none.
    """
    known = MOMENT_SCALARS if weight is not None else tuple(_OF_MOMENTS)
    for name in names or ():
        if weight is None and name in _OF_WEIGHT:
            raise ValueError(
                f"The metric {name!r} compares with the classifiers; there are none. "
                "Pass `weight`, or leave the metric out."
            )
    return {
        name: _of_moments(one_of("metrics", name, known), moments, weight)
        for name in (known if names is None else names)
    }


def _of_moments(name: str, moments: ClassMoments, weight: Tensor | None) -> float:
    if name in _OF_MOMENTS:
        return _OF_MOMENTS[name](moments)
    assert weight is not None  # the caller has checked the name
    return _OF_WEIGHT[name](moments, weight)


def running_names(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of scalars to record from class moments, checked.

    Raises:
        ValueError: If one is unknown, or needs a second look at the data.
    """
    if names is None:
        return _DEFAULT + _DEFAULT_OF_WEIGHT
    for name in names:
        if name in _OF_MEASUREMENT or name in _OF_EVALUATION:
            raise ValueError(
                f"{name!r} is not told by running statistics; these tell "
                f"{', '.join(MOMENT_SCALARS)}. Use `mode='evaluate'` for the others."
            )
        one_of("metrics", name, MOMENT_SCALARS)
    return tuple(names)


def measured_functions(
    metrics: Sequence[str] | Mapping[str, OfMeasurement] | None, *, evaluated: bool
) -> Mapping[str, OfMeasurement]:
    """Return functions of a measurement by name, checked.

    Args:
        metrics: Names of ``MEASURED_SCALARS``, or functions of a measurement by name;
            a selection when omitted.
        evaluated: Whether there are held-out data.

    Raises:
        ValueError: If a name is unknown, or needs held-out data and there are none.
    """
    if isinstance(metrics, Mapping):
        return MappingProxyType(dict(metrics))
    if metrics is None:
        metrics = (*_DEFAULT, *_DEFAULT_OF_WEIGHT, *_DEFAULT_MEASURED)
        metrics += ("eval_accuracy",) if evaluated else ()
    functions = {name: _measured(name) for name in metrics}
    for name in functions:
        if name in _OF_EVALUATION and not evaluated:
            raise ValueError(f"{name!r} needs held-out data: pass `eval_loader`.")
    return MappingProxyType(functions)


def _measured(name: str) -> OfMeasurement:
    one_of("metrics", name, MEASURED_SCALARS)
    if name in _OF_MOMENTS or name in _OF_WEIGHT:
        return lambda m: _of_moments(name, m.moments, m.weight)
    return (_OF_MEASUREMENT | _OF_EVALUATION)[name]


def layer_scalars(profile: LayerProfile) -> dict[str, float]:
    """Return the curves of each layer, named by its path, a slash and the metric."""
    columns = {name: getattr(profile, name)().tolist() for name in _OF_LAYERS}
    return {
        f"{path}/{name}": value
        for name, values in columns.items()
        for path, value in zip(profile.paths, values, strict=True)
    }


def saying_once(function: Callable[[], T], told: set[str]) -> T:
    """Return a value; what is undefined says so the first time, not every epoch.

    Args:
        function: What computes the value.
        told: The messages that were given before; new ones are added.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = function()
    for warning in caught:
        message = str(warning.message)
        if not issubclass(warning.category, UndefinedWarning) or message not in told:
            told.add(message)
            warn(message, warning.category)
    return value
