"""What a loader yields, split into the inputs of a model and their targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerpeel._checks import BatchError, listed

TARGET_KEYS = ("labels", "label")


@dataclass(frozen=True, eq=False)
class Pair:
    """One batch: ``loss_fn(model(*args, **kwargs), target)``.

    Attributes:
        args: Positional arguments of the model.
        kwargs: Keyword arguments of the model.
        target: Class indices or values, with one row per sample.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.target)


def split(raw: object, target: str = "target") -> tuple[Any, Any]:
    """Split what a loader yielded into inputs and targets, as they are.

    Args:
        raw: ``(input, target)`` as a tuple or list; or a mapping with ``"labels"`` or
            ``"label"``, whose other entries are the inputs.
        target: What a target is called in messages.

    Raises:
        BatchError: If it has another form.

    Example:
        >>> split({"pixels": 1, "labels": 2}), split([1, 2])
        (({'pixels': 1}, 2), (1, 2))
    """
    if isinstance(raw, Mapping):
        return _split_mapping(raw, target)
    if isinstance(raw, tuple | list) and len(raw) == 2:
        return raw[0], raw[1]
    size = f" of {len(raw)} items" if isinstance(raw, tuple | list) else ""
    raise BatchError(
        f"A batch must be `(input, {target})`, or a mapping with either 'labels' or "
        f"'label'; got a {type(raw).__name__}{size}. Wrap the loader, for instance in "
        "`[(x, y) for x, y, *_ in loader]`."
    )


def _split_mapping(raw: Mapping[Any, Any], target: str) -> tuple[dict[Any, Any], Any]:
    found = [key for key in TARGET_KEYS if key in raw]
    if len(found) != 1:
        raise BatchError(
            f"A batch that is a mapping must have its {target}s under one of the keys "
            f"'labels' and 'label'; got {listed(sorted(map(repr, raw)))}. "
            "Rename the one that holds them."
        )
    return {key: item for key, item in raw.items() if key not in found}, raw[found[0]]


def arguments(inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs as a model's arguments: those of a mapping go by their names."""
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})


def target_tensor(targets: object, target: str = "target") -> Tensor:
    """Return targets as a tensor with one row per sample.

    Args:
        targets: A tensor, an array or a list.
        target: What a target is called in messages.

    Raises:
        BatchError: If they are none, or belong to a single sample.
    """
    try:
        tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BatchError(
            f"The {target}s of a batch must be class indices or values, as a tensor, "
            f"array or list; got a {type(targets).__name__}. Encode class names as "
            "integers."
        ) from error
    if tensor.ndim == 0:
        raise BatchError(
            f"A batch must hold samples with one {target} each; got a single {target}. "
            "Wrap the data set in `torch.utils.data.DataLoader(dataset, batch_size=64)`."
        )
    return tensor


def check_iterable(loader: object) -> None:
    """Check that a loader yields batches.

    Raises:
        BatchError: If it is not iterable.
    """
    if not isinstance(loader, Iterable):
        raise BatchError(
            "`data` must be an iterable of batches `(input, target)`; got a "
            f"{type(loader).__name__}. Pass a DataLoader, or a list with one batch."
        )


def check_found(found: object) -> None:
    """Check that a loader yielded samples.

    Raises:
        BatchError: If what it yielded is empty.
    """
    if not found:
        raise BatchError(
            "`data` must yield at least one sample; it yielded none. A generator that "
            "was iterated before is exhausted: make it anew, or pass a list."
        )
