"""The batches of a loader, read once and held: every evaluation is of one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from layerpeel._progress import track
from layerpeel.measurement.sources.pairs import (
    Pair,
    arguments,
    check_found,
    check_iterable,
    split,
    target_tensor,
)


def hold(
    loader: Iterable[Any],
    dtype: torch.dtype,
    device: torch.device,
    progress: bool | None = None,
) -> tuple[Pair, ...]:
    """Read a loader once, and copy its batches to a dtype and device.

    A loader that shuffles or augments gives other batches each time it is read; a
    gradient and a Hessian of different data would say nothing about one point.

    Args:
        loader: Batches ``(input, target)``, where a mapping as input becomes keyword
            arguments; or mappings with ``"labels"`` or ``"label"``, whose other entries
            become keyword arguments. Targets may be class indices or real values.
        dtype: The type of all floating numbers among them.
        device: Where they go.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Raises:
        BatchError: If a batch has another form, or there is no sample.

    Example:
        >>> batches = hold([(torch.ones(2, 3), [0, 1])], torch.float64, torch.device("cpu"))
        >>> batches[0].size, batches[0].args[0].dtype
        (2, torch.float64)
    """
    check_iterable(loader)
    batches = [
        _batch(raw, dtype, device)
        for raw in track(loader, "Reading data", show=progress)
    ]
    held = tuple(batch for batch in batches if batch.size)
    check_found(held)
    return held


def _batch(raw: object, dtype: torch.dtype, device: torch.device) -> Pair:
    inputs, targets = split(raw)
    target = _copied(target_tensor(targets), dtype, device)
    return Pair(*arguments(_copied(inputs, dtype, device)), target)


def _copied(value: Any, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401
    """Return a value with its tensors in memory of their own, floats of one dtype."""
    if isinstance(value, Tensor):
        wanted = dtype if value.is_floating_point() else value.dtype
        return value.detach().to(device, wanted, copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item, dtype, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_copied(item, dtype, device) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value
