r"""Merging a statistic over the processes of a ``torch.distributed`` job.

Neighbours merge in pairs, then pairs of pairs, up to the first process, which hands the
result to all: :math:`\lceil \log_2 W \rceil` merges follow each other for :math:`W`
processes, nobody holds more than two values, and all hold the same bits, whatever their
libraries or numbers of threads do to the last one. The order is that of the ranks.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from layerpeel._checks import MergeError
from layerpeel.measurement.distributed.errors import shared_errors
from layerpeel.measurement.distributed.exchange import Group, is_distributed
from layerpeel.measurement.distributed.messages import (
    Failure,
    Message,
    broadcast,
    receive,
    send,
)
from layerpeel.measurement.files.packed import Packed
from layerpeel.measurement.statistics.statistic import Statistic

S = TypeVar("S", bound=Statistic)


def all_merge(value: S | None, group: Group = None) -> S:
    """Merge the values of all processes, and give all of them the result.

    Every process of the group has to call this at the same point. Outside of a
    ``torch.distributed`` job the value is returned as it is.

    Args:
        value: What this process has measured of its own data; ``None`` if it has none.
        group: The processes that take part; all of them when omitted.

    Returns:
        The value of all data, bit by bit the same on every process, on the device of
        the value that was given.

    Raises:
        MergeError: On every process, if values differ in kind, sizes or settings, one
            of them is no statistic, or there is none.

    Example:
        >>> from layerpeel.measurement import ClassMoments
        >>> moments = ClassMoments.empty(num_classes=2, width=3)
        >>> all_merge(moments) is moments  # a job of one process
        True
    """
    if not is_distributed():
        return _checked(value)
    mine = _packed(value)
    merged = broadcast(_merged_upwards(mine, group), 0, group)
    if isinstance(merged, Failure):
        raise MergeError(merged.text)
    if merged is None:
        return _checked(None)
    with shared_errors(group):
        return merged.value().to(_device_of(value))  # type: ignore[return-value]


def _merged_upwards(message: Message, group: Group) -> Message:
    """Merge along a tree; only the first process returns the merged value."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    step = 1
    while step < size:
        if rank % (2 * step):
            send(message, rank - step, group)
            return message
        if rank + step < size:
            ranks = f"{_span(rank, step, size)} and {_span(rank + step, step, size)}"
            message = _pair(message, receive(rank + step, group), ranks)
        step *= 2
    return message


def _pair(mine: Message, other: Message, ranks: str) -> Message:
    """Merge two messages. Nothing is raised here: others wait for an answer."""
    for message in (mine, other):
        if isinstance(message, Failure):
            return message
    if not (isinstance(mine, Packed) and isinstance(other, Packed)):
        return mine or other
    try:
        return Packed.of(_on_cpu(mine).merge(_on_cpu(other)))
    except Exception as error:  # of any kind: it is raised on all ranks, by the caller
        return Failure(
            f"Merging the values of {ranks}: {type(error).__name__}: {error}"
        )


def _packed(value: object) -> Message:
    if value is None:
        return None
    if isinstance(value, Statistic):
        return Packed.of(value)
    return Failure(
        "Every process must give a statistic, or `None` without data; got "
        f"{type(value).__name__}."
    )


def _on_cpu(message: Packed) -> Statistic:
    return message.value().to("cpu")


def _span(first: int, length: int, size: int) -> str:
    last = min(first + length, size) - 1
    return f"rank {first}" if first == last else f"ranks {first} to {last}"


def _device_of(value: Statistic | None) -> torch.device:
    parts = value.parts().values() if value is not None else ()
    devices = (part.device for part in parts if isinstance(part, Tensor))
    return next(devices, torch.device("cpu"))


def _checked(value: S | None) -> S:
    if value is None:
        raise MergeError(
            "At least one process must have a value; none has. Give the data to them."
        )
    return value
