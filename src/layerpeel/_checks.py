"""Argument checks. Every message says what must hold, what was got and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from layerpeel._warnings import UndefinedWarning as UndefinedWarning
from layerpeel._warnings import undefined as undefined


class LayerpeelError(Exception):
    """Base of the errors that are about the caller's model or data."""


class ShapeError(LayerpeelError, ValueError):
    """An array has the wrong shape."""


class LabelError(LayerpeelError, ValueError):
    """Labels are not class indices in ``[0, K)``."""


class NonFiniteError(LayerpeelError, ValueError):
    """Features or weights contain NaN or infinity."""


class HeadError(LayerpeelError, ValueError):
    """The classifier head was not found, or its outputs are not the logits."""


class BatchError(LayerpeelError, ValueError):
    """A batch of the loader is not ``(input, label)``, or there is no batch."""


class DeviceError(LayerpeelError, ValueError):
    """The model and the data are on different devices."""


class NondeterminismError(LayerpeelError, RuntimeError):
    """The same batch gave different features twice."""


class MergeError(LayerpeelError, ValueError):
    """Two accumulated values differ in kind, sizes or conventions."""


class FileError(LayerpeelError, ValueError):
    """A file does not hold what its name or its use says."""


class StateError(LayerpeelError, ValueError):
    """A saved state belongs to something else than what it is loaded into."""


class SourceError(LayerpeelError, ValueError):
    """A reference to a model or to data leads nowhere, or to something else."""


class RankError(LayerpeelError, RuntimeError):
    """Another process of a distributed job raised, or disagrees with this one."""


class LayerError(LayerpeelError, ValueError):
    """A layer does not exist, is not called once per batch, or gives no features."""


class LossError(LayerpeelError, ValueError):
    """A loss function does not give the risk of a batch, or cannot be differentiated."""


class EditError(LayerpeelError, ValueError):
    """A model cannot be edited as asked; the message names what is in the way."""


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is allowed; of one in other letters say which is meant.

    Raises:
        ValueError: If it is not; the message lists the allowed values.
    """
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    lowered = {option.lower(): option for option in allowed}
    close = [lowered[c] for c in get_close_matches(str(value).lower(), lowered, n=1)]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}.{hint}"
    )


def positive(name: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite number above zero.

    Raises:
        ValueError: If it is not.
    """
    number = as_number(value)
    if number is None or not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be a finite number above 0; got {value!r}.")
    return number


def at_least(name: str, value: object, least: int) -> int:
    """Return ``value`` if it is an integer of at least ``least``.

    Raises:
        ValueError: If it is not.
    """
    number = None if isinstance(value, bool | str) else as_number(value)
    if number is None or not number.is_integer() or number < least:
        raise ValueError(f"`{name}` must be an integer >= {least}; got {value!r}.")
    # Not of the float, which is rounded beyond 2**53; whatever has one has an integer.
    return int(value)  # type: ignore[call-overload, no-any-return]


def as_number(value: object) -> float | None:
    """Return a number, or a text that reads as one, as a float; else ``None``."""
    if len(getattr(value, "shape", ())) > 0:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def listed(items: Sequence[object], most: int = 8) -> str:
    """Join items for a message, cut after ``most`` with the number left out."""
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown}, ... ({len(items) - most} more)"


def class_indices(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Return labels as int64 if they are class indices.

    Args:
        labels: Class indices of any integer type, with shape :math:`(n,)`.
        num_classes: The number of classes; not checked when omitted.

    Raises:
        ShapeError: If there is not one label per sample.
        LabelError: If they are no integers, or lie outside ``[0, num_classes)``.
    """
    if labels.ndim != 1:
        hint = " Take `labels.argmax(1)` of one-hot labels." if labels.ndim == 2 else ""
        raise ShapeError(
            f"`labels` must have shape (n,), one class index per sample; got "
            f"{tuple(labels.shape)}.{hint}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise LabelError(
            f"`labels` must be class indices, integers; got {labels.dtype}. "
            "Convert them with `labels.long()` if they are indices."
        )
    indices = labels.long()
    bound = float("inf") if num_classes is None else num_classes
    outside = indices[(indices < 0) | (indices >= bound)]
    if len(outside):
        raise LabelError(
            f"`labels` must lie in [0, {'K' if num_classes is None else num_classes}); "
            f"got values from {int(indices.min())} to {int(indices.max())}. "
            f"{len(outside)} of {len(indices)} labels lie outside, with the values "
            f"{listed(sorted(set(outside.tolist())))}."
        )
    return indices


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity; of other than real floats it does.

    Its ends tell: they are NaN where one entry is. That reads the memory once, while
    ``isfinite`` writes a tensor of truth values first.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor.detach())
    return math.isfinite(float(low)) and math.isfinite(float(high))
