"""Measurements of parts of the data, merged to that of all data.

Every part is measured on its own, in any job of any batch system, and the files are
merged at the end: no process waits for another. All but NC4 is what one measurement of
all the data would be; NC4 compares each part with the class means of that part, and
says so in ``nearest_mean.against``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from layerpeel._checks import MergeError, listed
from layerpeel.measurement.measurement import Measurement


def merge_measurements(first: Measurement, *others: Measurement) -> Measurement:
    """Merge measurements of the same last layer on disjoint data.

    Held-out data are disjoint too: each part has a part of them, or one has them all.

    Args:
        first: A measurement.
        others: Further ones, of the same network, with the same options.

    Returns:
        The measurement of all data. Which features of a class are kept for pictures
        depends on the order, and nothing else does.

    Raises:
        MergeError: If the last layers, the names of classes, or the options differ; the
            message says which.

    Example:
        >>> from layerpeel.measurement import measure_features
        >>> labels, weight = torch.arange(3).repeat(4), torch.eye(3)
        >>> parts = [
        ...     measure_features(weight[y], y, weight=weight) for y in labels.split(6)
        ... ]
        >>> merge_measurements(*parts).class_counts
        (4, 4, 4)
    """
    return reduce(_pair, others, first)


def _pair(one: Measurement, other: Measurement) -> Measurement:
    _check_same_layer(one, other)
    _check_same_options(one, other)
    return replace(
        one,
        statistics=one.statistics.merge(other.statistics),
        nearest_mean=_merged(one.nearest_mean, other.nearest_mean),
        eval_confusion=_merged(one.eval_confusion, other.eval_confusion),
        profile=_merged(one.profile, other.profile),
    )


def _merged(one: Any, other: Any) -> Any:  # noqa: ANN401 - statistics of one kind
    if one is None or other is None:
        return one or other
    return one.merge(other)


def _check_same_layer(one: Measurement, other: Measurement) -> None:
    same = {
        "the weight of the last layer": _equal(one.weight, other.weight),
        "its bias": _equal(one.bias, other.bias),
        f"its path ({one.head!r} and {other.head!r})": one.head == other.head,
        "the names of the classes": one.class_names == other.class_names,
        "the named minority": one.minority == other.minority,
    }
    _refuse(same, "Measure the same weights, with the same names, on each part.")


def _check_same_options(one: Measurement, other: Measurement) -> None:
    same = {
        "light mode": one.light == other.light,
        "whether NC4 was measured": (
            (one.nearest_mean is None) == (other.nearest_mean is None)
        ),
        "whether layers were profiled": (one.profile is None)
        == (other.profile is None),
    }
    _refuse(same, "Measure each part with the same options.")


def _refuse(same: Mapping[str, bool], advice: str) -> None:
    differing = [what for what, equal in same.items() if not equal]
    if differing:
        raise MergeError(
            "Two measurements merge when they are of one network, measured alike; "
            f"these differ in {listed(differing)}. {advice}"
        )


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one, other)
