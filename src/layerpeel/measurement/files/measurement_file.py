"""A measurement in a file: its statistics, its last layer, and what classes are called."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import FileError
from layerpeel.measurement.files.container import Container
from layerpeel.measurement.files.content import check_content
from layerpeel.measurement.files.packed import built, joined_parts, split_parts
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.classes import check_minority
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.statistic import Statistic

_KIND = "Measurement"


@dataclass(frozen=True, eq=False)
class _Record(Statistic):
    """The fields of a measurement, with names as JSON: all of it has parts."""

    statistics: RowStatistics
    nearest_mean: NearestMean | None
    eval_confusion: Confusion | RightDecisions | None
    weight: Float64[Tensor, "K d"]
    bias: Float64[Tensor, " K"] | None
    head: str
    class_names: str
    minority: str | None
    profile: LayerProfile | None


def save_measurement(measurement: Measurement, path: str | os.PathLike[str]) -> Path:
    """Write a measurement to a file, whole or not at all.

    Args:
        measurement: The measurement.
        path: The file, ending in ``.safetensors``; its directory must exist.

    Returns:
        The path written, with symbolic links followed.

    Raises:
        FileError: If the path has another suffix.
        OSError: If it cannot be written; the target is then as it was.

    Example:
        >>> import tempfile, torch
        >>> from layerpeel.measurement import measure_features
        >>> labels = torch.arange(3).repeat(4)
        >>> measured = measure_features(
        ...     torch.eye(3)[labels], labels, weight=torch.eye(3)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_measurement(measured, f"{folder}/stats.safetensors")
        ...     load_measurement(path).accuracy
        1.0
    """
    minority = measurement.minority
    record = _Record(
        measurement.statistics,
        measurement.nearest_mean,
        measurement.eval_confusion,
        measurement.weight,
        measurement.bias,
        measurement.head,
        json.dumps(measurement.class_names),
        None if minority is None else json.dumps([int(k) for k in minority]),
        measurement.profile,
    )
    tensors, settings = split_parts(record.parts())
    return Container(_KIND, settings, tensors).write(path)


def load_measurement(path: str | os.PathLike[str]) -> Measurement:
    """Read a measurement that :func:`save_measurement` wrote.

    Args:
        path: The file.

    Returns:
        The same measurement, bit by bit.

    Raises:
        FileError: If the file is damaged, was changed, has another format or version,
            holds something else, parts that do not fit together, or what cannot be
            measured.
        FileNotFoundError: If there is no such file.
    """
    content = Container.read(path)
    if content.kind != _KIND:
        raise FileError(
            f"`{path}` must hold a {_KIND}; it holds a {content.kind}. Give a file that "
            "`layerpeel measure` wrote, or read it with `load_statistic`."
        )
    try:
        parts = joined_parts(content.tensors, content.settings)
        record = built(_Record, parts, called=_KIND)
        check_content(record)
        return _measurement(record)
    except FileError as error:
        raise FileError(f"`{path}`: {error}") from error


def _measurement(record: _Record) -> Measurement:
    _check_sizes(record)
    classes = len(record.weight)
    return Measurement(
        statistics=record.statistics,
        nearest_mean=record.nearest_mean,
        eval_confusion=record.eval_confusion,
        weight=record.weight,
        bias=record.bias,
        head=record.head,
        class_names=_names(record.class_names, classes),
        minority=_minority(record.minority, classes),
        profile=record.profile,
    )


def _check_sizes(record: _Record) -> None:
    """Check that statistics and last layer are about the same classes and features."""
    classes, width = record.weight.shape
    found = record.statistics.moments
    if (found.num_classes, found.width) != (classes, width):
        raise FileError(
            f"Statistics must be about the {classes} classes and {width} features of "
            f"the last layer; got {found.num_classes} and {found.width}. Write the "
            "file again."
        )


def _names(text: str, classes: int) -> tuple[str, ...]:
    names = _decoded(text)
    if (
        isinstance(names, list)
        and len(names) == classes
        and all(isinstance(name, str) for name in names)
    ):
        return tuple(names)
    raise FileError(
        f"`class_names` must be a list of {classes} texts in JSON; got {text!r}. Write "
        "the file again."
    )


def _minority(text: str | None, classes: int) -> tuple[int, ...] | None:
    if text is None:
        return None
    indices = _decoded(text)
    # To Python, a truth value is an integer.
    if not (isinstance(indices, list) and all(type(k) is int for k in indices)):
        raise FileError(
            f"`minority` must be a list of class indices in JSON; got {text!r}. Write "
            "the file again."
        )
    try:
        check_minority(indices, classes)
    except ValueError as error:
        raise FileError(str(error)) from error
    return tuple(indices)


def _decoded(text: str) -> object:
    """Return what a text in JSON says; ``None`` if it says nothing."""
    try:
        return json.loads(text)
    except ValueError:
        return None
