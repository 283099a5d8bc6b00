"""Statistics on their way from process to process, tensors as tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from layerpeel.measurement.distributed.exchange import (
    Group,
    as_bytes,
    as_text,
    transport_device,
)
from layerpeel.measurement.files.packed import Packed


@dataclass(frozen=True)
class Failure:
    """What went wrong on the way, told instead of a value.

    Attributes:
        text: The whole message.
    """

    text: str


Message: TypeAlias = Packed | Failure | None
"""A statistic, what prevented one, or ``None`` where there are no data."""

_Channel: TypeAlias = Callable[[Tensor], object]


def send(message: Message, to: int, group: Group = None) -> None:
    """Send a message to one process of the group, which has to call :func:`receive`."""
    put = partial(dist.send, dst=_global_rank(group, to), group=group)
    _emit(message, put, transport_device(group))


def receive(source: int, group: Group = None) -> Message:
    """Receive what one process of the group sends."""
    take = partial(dist.recv, src=_global_rank(group, source), group=group)
    return _absorb(take, transport_device(group))


def broadcast(message: Message, source: int, group: Group = None) -> Message:
    """Return, on every process of the group, the message of one of them."""
    channel = partial(dist.broadcast, src=_global_rank(group, source), group=group)
    if dist.get_rank(group) == source:
        _emit(message, channel, transport_device(group))
        return message
    return _absorb(channel, transport_device(group))


def _emit(message: Message, put: _Channel, device: torch.device) -> None:
    header = as_bytes(_header(message)).to(device)
    put(torch.tensor([len(header)], device=device))
    put(header)
    if isinstance(message, Packed):
        for tensor in message.tensors.values():
            if tensor.numel():
                put(tensor.detach().to(device).contiguous().view(-1).view(torch.uint8))


def _absorb(take: _Channel, device: torch.device) -> Message:
    length = torch.zeros(1, dtype=torch.int64, device=device)
    take(length)
    header = torch.zeros(int(length), dtype=torch.uint8, device=device)
    take(header)
    content = json.loads(as_text(header.cpu()))
    if content is None:
        return None
    if "failure" in content:
        return Failure(content["failure"])
    tensors = {}
    for name, dtype, shape in content["tensors"]:
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        if tensors[name].numel():
            take(tensors[name].view(-1).view(torch.uint8))
    return Packed(content["kind"], content["settings"], tensors)


def _header(message: Message) -> str:
    if message is None:
        return json.dumps(None)
    if isinstance(message, Failure):
        return json.dumps({"failure": message.text})
    tensors = [
        (name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        for name, tensor in message.tensors.items()
    ]
    return json.dumps(
        {"kind": message.kind, "settings": message.settings, "tensors": tensors}
    )


def _global_rank(group: Group, rank: int) -> int:
    return rank if group is None else dist.get_global_rank(group, rank)
