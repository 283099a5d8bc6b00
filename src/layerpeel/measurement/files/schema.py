"""Whether parts fit a kind of statistic: its own annotations are the schema."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jaxtyping import jaxtyped
from torch import Tensor

from layerpeel._checks import FileError, listed
from layerpeel.measurement.statistics.statistic import (
    Part,
    Statistic,
    fitting,
    kinds_of,
)


def check_parts(
    kind: type[Statistic],
    parts: Mapping[str, Part],
    prefix: str = "",
    called: str | None = None,
) -> None:
    """Check that parts are all those of a statistic, with the shapes and types it says.

    Args:
        kind: The statistic.
        parts: Its parts by name; those of a field that is a statistic, or a tuple, have
            a dot and a name, or an index, after that of the field.
        prefix: What the names are preceded by in messages.
        called: What messages call the statistic; as its class when omitted.

    Raises:
        FileError: If a part is missing, left over, or of another shape or type.
    """
    annotations = get_type_hints(kind)
    hints = {field.name: annotations[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    inner = {name: _below(name, parts) for name in hints if name not in parts}
    kinds = kinds_of(kind)
    nested = {name for name in inner if kinds[name] and inner[name]}
    nested |= {name for name in inner if get_origin(hints[name]) is tuple}
    _check_names(called or kind.__name__, hints, parts, nested, prefix)
    _check_types(hints, {name: parts[name] for name in hints if name in parts}, prefix)
    for name, below in inner.items():
        if get_origin(hints[name]) is tuple:
            _check_items(get_args(hints[name])[0], below, f"{prefix}{name}.")
        else:
            check_parts(fitting(kinds[name], below), below, f"{prefix}{name}.")


def _check_names(
    called: str,
    hints: Mapping[str, Any],
    parts: Mapping[str, Part],
    nested: Set[str],
    prefix: str,
) -> None:
    """Check that each field has its part, or parts, and that none is left over."""
    missing = [name for name in hints if name not in parts and name not in nested]
    fields_of = {key: key.partition(".")[0] for key in parts}
    unknown = [
        key
        for key, field in fields_of.items()
        if field not in (hints if key == field else nested)
    ]
    if missing or unknown:
        wrong = "lacks" if missing else "also has"
        found = listed([f"`{prefix}{name}`" for name in missing or unknown])
        raise FileError(
            f"A {called} must have its parts and no other; this one {wrong} {found}. "
            "Write it with the same version of layerpeel that reads it."
        )


def _check_types(
    hints: Mapping[str, Any], parts: Mapping[str, Part], prefix: str
) -> None:
    types = {name: _types(hints[name]) for name in parts}
    # One context per statistic: axes of one name have one length inside it. A function
    # called inside may have a context of its own, so that nothing is called.
    with jaxtyped("context"):
        misfits = [name for name in types if not isinstance(parts[name], types[name])]
    # To Python, a truth value is an integer.
    misfits += [n for n in types if isinstance(parts[n], bool) and bool not in types[n]]
    if misfits:
        name = misfits[0]
        raise FileError(
            f"`{prefix}{name}` must be {_shown(hints[name])}; got "
            f"{_described(parts[name])}. Write it again."
        )


def _check_items(
    kind: type,
    parts: Mapping[str, Part],
    prefix: str,
) -> None:
    """Check the items of a tuple: statistics, or plain values."""
    indices = {key.partition(".")[0] for key in parts}
    if indices != {str(i) for i in range(len(indices))}:
        raise FileError(
            f"`{prefix}` must be followed by 0, 1, 2 and so on; got "
            f"{listed(sorted(indices))}. Write it again."
        )
    if issubclass(kind, Statistic):
        for index in indices:
            check_parts(kind, _below(index, parts), f"{prefix}{index}.")
    else:
        _check_types(dict.fromkeys(parts, kind), parts, prefix)


def _below(name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    start = name + "."
    return {k.removeprefix(start): p for k, p in parts.items() if k.startswith(start)}


def _types(hint: Any) -> tuple[type, ...]:  # noqa: ANN401 - an annotation
    """Return what an instance may be of; an integer is welcome where a float is."""
    options = _options(hint)
    if not all(isinstance(option, type) for option in options):
        return (object,)  # an annotation that names no class says nothing checkable
    return (*options, int) if float in options else options


def _options(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an annotation
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _shown(hint: Any) -> str:  # noqa: ANN401 - an annotation
    names = [
        "None" if option is NoneType else getattr(option, "__name__", str(option))
        for option in _options(hint)
    ]
    return " or ".join(names)


def _described(part: Part) -> str:
    if isinstance(part, Tensor):
        return f"{part.dtype} with shape {tuple(part.shape)}"
    return f"{part!r}"
