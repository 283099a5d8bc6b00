"""Tensors inside tuples, lists and mappings, as batches and outputs hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors inside a value, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)


def moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - keeps its type
    """Return the value with its tensors on a device; other things are left alone."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value
