"""A statistic in two heaps: tensors, and everything else as JSON.

That is the form in which a statistic is written to a file, and in which it travels from
one process to another. Numbers come back bit by bit, NaN and infinity included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from layerpeel._checks import FileError
from layerpeel.measurement.files.kinds import kind_named
from layerpeel.measurement.files.schema import check_parts
from layerpeel.measurement.statistics.statistic import Part, Statistic

S = TypeVar("S", bound=Statistic)


@dataclass(frozen=True, eq=False)
class Packed:
    """A statistic, taken apart.

    Attributes:
        kind: The name of its class.
        settings: The parts that are no tensors, as JSON can hold them.
        tensors: The parts that are.
    """

    kind: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, value: Statistic) -> Packed:
        """Take a statistic apart."""
        tensors, settings = split_parts(value.parts())
        return cls(type(value).__name__, settings, tensors)

    def value(self) -> Statistic:
        """Put the statistic together again.

        Raises:
            FileError: If there is no such kind, parts are missing or left over, or one
                has another shape or type than its class says.
        """
        kind = kind_named(self.kind)
        return built(kind, joined_parts(self.tensors, self.settings))


def built(kind: type[S], parts: Mapping[str, Part], called: str | None = None) -> S:
    """Build a statistic from its parts, once they have been checked.

    Args:
        kind: The statistic.
        parts: Its parts by name.
        called: What messages call the statistic; as its class when omitted.

    Raises:
        FileError: If parts are missing or left over, or one has another shape or type
            than the class says.
    """
    check_parts(kind, parts, called=called)
    try:
        return kind.from_parts(parts)
    except KeyError as error:
        raise FileError(
            f"A {called or kind.__name__} must have all its parts; this one lacks "
            f"{error}. Write it again."
        ) from error


def split_parts(
    parts: Mapping[str, Part],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors among some parts, and the others as JSON can hold them."""
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    settings = {
        name: _to_json(part)
        for name, part in parts.items()
        if not isinstance(part, Tensor)
    }
    return tensors, settings


def joined_parts(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> dict[str, Part]:
    """Return what :func:`split_parts` has split.

    Raises:
        FileError: If a setting is none that was split.
    """
    return {**tensors, **{name: _of_json(part) for name, part in settings.items()}}


def _to_json(part: object) -> object:
    # JSON has neither NaN nor infinity, and tells 1 from 1.0 only in Python.
    if isinstance(part, float) and not math.isfinite(part):
        return {"float": repr(part)}
    return part


def _of_json(part: object) -> Any:  # noqa: ANN401 - whatever it was
    if not isinstance(part, dict):
        return part
    try:
        return float(part["float"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"A setting must be a plain value, or a number in words; got {part!r}. "
            "Write it again."
        ) from error
