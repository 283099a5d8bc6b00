"""The windows of max-pooling and other maxima: what each is the largest of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# What follows the input: of `max_pool2d` and the like, by name or by position.
_OPTIONS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def reduced_windows(x: Tensor, dims: object) -> Tensor:
    """Return the entries of each maximum over some axes, with shape :math:`(n, w)`.

    Args:
        x: The tensor.
        dims: An axis, or some; all when omitted.
    """
    if not isinstance(dims, int | tuple | list) or dims in ((), []):
        return x.reshape(1, -1)
    axes = [dims] if isinstance(dims, int) else list(dims)
    ends = list(range(x.ndim - len(axes), x.ndim))
    return x.movedim(axes, ends).flatten(x.ndim - len(axes)).flatten(0, -2)


def pooled_windows(
    name: str, x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor | None:
    """Return the entries of each window of a pooling, with shape :math:`(n, w)`.

    Where a window has fewer entries, it is filled up with minus infinity.

    Args:
        name: ``"max_pool2d"``, ``"adaptive_max_pool1d"`` and the like.
        x: The input, with axes of space last.
        args: What follows the input.
        kwargs: The keyword arguments.

    Returns:
        The windows; nothing for poolings that draw their windows at random.
    """
    if "fractional" in name:
        return None
    spaces = next(int(digit) for digit in name if digit.isdigit())
    lengths = list(x.shape[-spaces:])
    if name.startswith("adaptive"):
        size = args[0] if args else kwargs["output_size"]
        wanted = _each(size, spaces)
        tables = [_adaptive(n, m) for n, m in zip(lengths, wanted, strict=True)]
    else:
        given = {**kwargs, **dict(zip(_OPTIONS, args, strict=False))}
        tables = _regular(lengths, given)
    return _gathered(x, [table.to(x.device) for table in tables])


def _regular(lengths: list[int], given: Mapping[str, Any]) -> list[Tensor]:
    kernel, spaces = given["kernel_size"], len(lengths)
    options = zip(
        lengths,
        _each(kernel, spaces),
        _each(given.get("stride") or kernel, spaces),
        _each(given.get("padding", 0), spaces),
        _each(given.get("dilation", 1), spaces),
        strict=True,
    )
    return [_table(*values, ceil=bool(given.get("ceil_mode"))) for values in options]


def _table(
    length: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool
) -> Tensor:
    """Return which entries each window has along one axis; -1 where there is none."""
    room = length + 2 * padding - dilation * (kernel - 1) - 1
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    # A window has to begin in the input, or left of it.
    if ceil and (count - 1) * stride >= length + padding:
        count -= 1
    starts = torch.arange(count)[:, None] * stride - padding
    table = starts + dilation * torch.arange(kernel)
    return torch.where((table >= 0) & (table < length), table, -1)


def _adaptive(length: int, wanted: int | None) -> Tensor:
    count = length if wanted is None else wanted
    order = torch.arange(count)
    starts, stops = order * length // count, -(-(order + 1) * length // count)
    table = starts[:, None] + torch.arange(int((stops - starts).max()))
    return torch.where(table < stops[:, None], table, -1)


def _gathered(x: Tensor, tables: list[Tensor]) -> Tensor:
    """Return the entries at the products of some tables of the last axes."""
    spaces = len(tables)
    for axis, table in zip(range(x.ndim - spaces, x.ndim), tables, strict=True):
        edge = torch.full_like(x.narrow(axis, 0, 1), -torch.inf)
        padded = torch.cat([x, edge], axis)
        rows = torch.where(table < 0, x.shape[axis], table)
        # The entries of a window become an axis at the end; the others stay in place.
        found = padded.index_select(axis, rows.flatten())
        shape = (*x.shape[:axis], *table.shape, *x.shape[axis + 1 :])
        x = found.reshape(shape).movedim(axis + 1, -1)
    return x.flatten(-spaces).flatten(0, -2)


def _each(value: Any, spaces: int) -> list[Any]:  # noqa: ANN401 - as torch takes them
    values = list(value) if isinstance(value, tuple | list) else [value]
    return values * spaces if len(values) == 1 else values
