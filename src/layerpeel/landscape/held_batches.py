"""The batches of a loader, read once and held: every evaluation is of one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerpeel._checks import BatchError, listed
from layerpeel._progress import track

_LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True, eq=False)
class HeldBatch:
    """One batch: ``loss_fn(model(*args, **kwargs), targets)``.

    Attributes:
        args: Positional arguments of the model.
        kwargs: Keyword arguments of the model.
        targets: Class indices or values, with as many rows as there are samples.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.targets)


def hold(
    loader: Iterable[Any],
    dtype: torch.dtype,
    device: torch.device,
    progress: bool | None = None,
) -> tuple[HeldBatch, ...]:
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
    if not isinstance(loader, Iterable):
        raise BatchError(
            "`data` must be an iterable of batches `(input, target)`; got a "
            f"{type(loader).__name__}. Pass a DataLoader, or a list with one batch."
        )
    batches = [
        _batch(raw, dtype, device)
        for raw in track(loader, "Reading data", show=progress)
    ]
    held = tuple(batch for batch in batches if batch.size)
    if not held:
        raise BatchError(
            "`data` must yield at least one sample; it yielded none. A generator that "
            "was iterated before is exhausted: make it anew, or pass a list."
        )
    return held


def _batch(raw: object, dtype: torch.dtype, device: torch.device) -> HeldBatch:
    inputs, targets = _split(raw)
    copied = _copied(_target_tensor(targets), dtype, device)
    if isinstance(inputs, Mapping):
        return HeldBatch((), dict(_copied(inputs, dtype, device)), copied)
    return HeldBatch((_copied(inputs, dtype, device),), {}, copied)


def _split(raw: object) -> tuple[Any, Any]:
    if isinstance(raw, tuple | list) and len(raw) == 2:
        return raw[0], raw[1]
    if isinstance(raw, Mapping):
        found = [key for key in _LABEL_KEYS if key in raw]
        if len(found) == 1:
            rest = {key: item for key, item in raw.items() if key not in found}
            return rest, raw[found[0]]
        got = f"a mapping with {listed(sorted(map(repr, raw)))}"
    else:
        size = f" of {len(raw)} items" if isinstance(raw, tuple | list) else ""
        got = f"a {type(raw).__name__}{size}"
    raise BatchError(
        "A batch must be `(input, target)`, or a mapping with either 'labels' or "
        f"'label'; got {got}. Wrap the loader, for instance in "
        "`[(x, y) for x, y, *_ in loader]`."
    )


def _target_tensor(targets: object) -> Tensor:
    try:
        tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BatchError(
            "The second entry of a batch must be class indices or values, as a tensor, "
            f"array or list; got a {type(targets).__name__}."
        ) from error
    if tensor.ndim == 0:
        raise BatchError(
            "A batch must hold samples with one target each; got a single target. Wrap "
            "the data set in `torch.utils.data.DataLoader(dataset, batch_size=64)`."
        )
    return tensor


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
