"""What every accumulated value can do: merge, move to a device, be taken apart.

A statistic describes some data. Two that describe disjoint data merge into one that
describes both, in any order and grouping: batches, workers and machines are all the
same operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeAlias, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from layerpeel._checks import MergeError

Part: TypeAlias = Tensor | int | float | str | bool | None
"""A statistic is made of tensors and of settings, which are plain values."""

S = TypeVar("S", bound="Statistic")

_SEPARATOR = "."


class Statistic:
    """A value accumulated over data; subclasses are frozen dataclasses.

    A field is a tensor, another statistic, ``None`` or a plain value. Plain values are
    settings, such as a convention: two statistics merge only where these are equal.
    A statistic whose fields are statistics merges field by field; others say how by
    ``_merged``.

    Attributes:
        growing: Names of tensors whose shape depends on how much data was seen.
    """

    growing: ClassVar[tuple[str, ...]] = ()

    def merge(self: S, other: S) -> S:
        """Combine with the value of disjoint data.

        Args:
            other: A value of the same kind, sizes and settings.

        Returns:
            The value of the union of both data sets.

        Raises:
            MergeError: If kind, sizes or settings differ; the message says which.
        """
        self._check_mergeable(other)
        return self._merged(other)

    def to(self: S, device: str | torch.device) -> S:
        """Return the value with its tensors on a device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def copied(self: S) -> S:
        """Return the value with tensors of its own."""
        return self._mapped(Tensor.clone)

    def parts(self) -> dict[str, Part]:
        """Return tensors and settings by name, those of fields after a dot."""
        parts: dict[str, Part] = {}
        for name, value in self._fields().items():
            if isinstance(value, Statistic):
                inner = value.parts()
                parts |= {f"{name}{_SEPARATOR}{key}": inner[key] for key in inner}
            else:
                parts[name] = value
        return parts

    @classmethod
    def from_parts(cls: type[S], parts: Mapping[str, Part]) -> S:
        """Build a value from what :meth:`parts` returned.

        Raises:
            KeyError: If a part is missing.
        """
        values: dict[str, Any] = {}
        for name, kinds in kinds_of(cls).items():
            inner = {
                key.removeprefix(name + _SEPARATOR): part
                for key, part in parts.items()
                if key.startswith(name + _SEPARATOR)
            }
            values[name] = (
                fitting(kinds, inner).from_parts(inner)
                if kinds and inner
                else parts[name]
            )
        return cls(**values)

    def _merged(self: S, other: S) -> S:
        """Merge field by field: each is a statistic or a setting."""
        mine, others = self._fields(), other._fields()
        merged = {
            name: value.merge(others[name])
            for name, value in mine.items()
            if isinstance(value, Statistic)
        }
        return self._replaced(merged)

    def _mapped(self: S, function: Callable[[Tensor], Tensor]) -> S:
        """Apply a function to every tensor."""
        changed: dict[str, Any] = {}
        for name, value in self._fields().items():
            if isinstance(value, Statistic):
                changed[name] = value._mapped(function)
            elif isinstance(value, Tensor):
                changed[name] = function(value)
        return self._replaced(changed)

    def _check_mergeable(self, other: object) -> None:
        kind = type(self).__name__
        if type(other) is not type(self):
            raise MergeError(
                f"A {kind} merges with another one; got {type(other).__name__}."
            )
        for name, mine in self._fields().items():
            theirs = getattr(other, name)
            if _form(mine) != _form(theirs) and name not in self.growing:
                raise MergeError(
                    f"Two {kind} values merge when they agree in `{name}`; got "
                    f"{_form(mine)} and {_form(theirs)}. Measure both the same way."
                )

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def _replaced(self: S, changed: Mapping[str, Any]) -> S:
        return replace(self, **changed)  # type: ignore[type-var]


def _form(value: object) -> object:
    """What has to agree: shape and device, the kind of a statistic, or a setting."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"shape {tuple(value.shape)}{where}"
    return type(value).__name__ if isinstance(value, Statistic) else repr(value)


def kinds_of(cls: type[Statistic]) -> dict[str, list[type[Statistic]]]:
    """Return, for each field, the classes of statistic that it may hold."""
    hints = get_type_hints(cls)
    kinds: dict[str, list[type[Statistic]]] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        options = get_args(hints[field.name]) or (hints[field.name],)
        kinds[field.name] = [
            option
            for option in options
            if isinstance(option, type) and issubclass(option, Statistic)
        ]
    return kinds


def fitting(kinds: list[type[Statistic]], parts: Mapping[str, Part]) -> type[Statistic]:
    """Return the class whose fields the parts are; the first if it is none's."""
    names = {key.split(_SEPARATOR)[0] for key in parts}
    of_names = (k for k in kinds if {f.name for f in fields(k)} == names)  # type: ignore[arg-type]
    return next(of_names, kinds[0])
