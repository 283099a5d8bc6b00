"""What processes of a ``torch.distributed`` job tell each other: texts and bytes.

Nothing is pickled: a text travels as its UTF-8 bytes, a tensor as its own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from jaxtyping import UInt8
from torch import Tensor

# A process group, or `None` for all processes of the job. Builds of PyTorch without
# distributed parts have no such class to name.
Group: TypeAlias = Any


def is_distributed() -> bool:
    """Whether this process is one of a ``torch.distributed`` job."""
    return dist.is_available() and dist.is_initialized()


def exchange(text: str, group: Group = None) -> list[str]:
    """Tell every process of a group a text, and hear the texts of all.

    Args:
        text: What this process says.
        group: The processes that take part, all of them at this same point.

    Returns:
        What each said, in the order of their ranks in the group.
    """
    device = transport_device(group)
    mine = as_bytes(text).to(device)
    size = dist.get_world_size(group)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(mine)], device=device), group=group)
    most = max(int(length) for length in lengths)
    # Collectives want one length: shorter texts are filled up.
    padded = torch.zeros(most, dtype=torch.uint8, device=device)
    padded[: len(mine)] = mine
    said = [torch.empty_like(padded) for _ in range(size)]
    if most:
        dist.all_gather(said, padded, group=group)
    return [
        as_text(part[: int(length)].cpu())
        for part, length in zip(said, lengths, strict=True)
    ]


def transport_device(group: Group = None) -> torch.device:
    """Return where tensors must be for a group to send them."""
    config = dist.get_backend_config(group)
    on_gpu_only = "nccl" in config and "gloo" not in config
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu_only else _CPU


def as_bytes(text: str) -> UInt8[Tensor, " n"]:
    """Return a text as its bytes."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def as_text(data: UInt8[Tensor, " n"]) -> str:
    """Return the text of some bytes on the CPU."""
    return bytes(data.tolist()).decode()


_CPU = torch.device("cpu")
