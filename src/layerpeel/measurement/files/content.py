"""Whether a statistic from a file can have been measured: counts, and known names.

Parts of the right shapes and types may still be no measurement. What is wrong is found
here, and not in the figures that would be computed from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from torch import Tensor

from layerpeel._checks import FileError, one_of
from layerpeel.measurement.layers.observer import MAPS
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.statistics.nearest_mean import REFERENCES, NearestMean
from layerpeel.measurement.statistics.statistic import Statistic

# What tensors are called that hold numbers of samples, or indices of classes.
_WHOLE = frozenset({"count", "counts", "agreed", "right", "on", "histogram", "labels"})

_KNOWN: Mapping[tuple[type[Statistic], str], Mapping[str, str]] = MappingProxyType(
    {(NearestMean, "against"): REFERENCES, (LayerProfile, "maps"): MAPS}
)


def check_content(value: Statistic, prefix: str = "") -> None:
    """Check that a statistic holds what can have been measured.

    Args:
        value: The statistic.
        prefix: What the names of its parts are preceded by in messages.

    Raises:
        FileError: If a count is negative or not whole, or a setting that has a name has
            an unknown one.
    """
    for name, part in _fields(value):
        if isinstance(part, Statistic):
            check_content(part, f"{prefix}{name}.")
        elif isinstance(part, Tensor) and name.rpartition(".")[2] in _WHOLE:
            _check_whole(f"{prefix}{name}", part)
        elif (type(value), name) in _KNOWN:
            _check_known(f"{prefix}{name}", part, _KNOWN[type(value), name])


def _fields(value: Statistic) -> Iterator[tuple[str, Any]]:
    """Yield fields by name, and the items of tuples by name and index."""
    for field in fields(value):  # type: ignore[arg-type]
        part = getattr(value, field.name)
        if isinstance(part, tuple):
            yield from ((f"{field.name}.{i}", item) for i, item in enumerate(part))
        else:
            yield field.name, part


def _check_whole(name: str, numbers: Tensor) -> None:
    bad = numbers < 0
    if numbers.is_floating_point():
        bad |= (numbers % 1) != 0  # so are NaN and infinity
    wrong = numbers[bad]
    if len(wrong):
        raise FileError(
            f"`{name}` must hold whole numbers of at least 0; got {wrong[0].item()}. "
            "Measure again."
        )


def _check_known(name: str, value: object, known: Mapping[str, str]) -> None:
    try:
        one_of(name, value, known)
    except ValueError as error:
        raise FileError(f"{error} Measure again.") from error
