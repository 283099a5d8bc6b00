"""How a loss function reduces a batch to one number: told by what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from layerpeel._checks import BatchError, LossError

REDUCTIONS = ("mean", "sum")

# What the caller gives; it returns a scalar, which is checked.
LossFunction: TypeAlias = Callable[..., Any]

# Halves of a batch add up to rounding; class weights and the like miss by far more.
_SAME = 1e-6

_HOW = {
    "mean": "averages over the samples of a batch",
    "sum": "sums over the samples of a batch",
    "other": "does neither average nor sum over the samples of a batch",
}


def check_loss(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> None:
    """Check that a loss function gives one number for a batch.

    Raises:
        LossError: If it does not run, or gives no scalar, or targets would be broadcast.
        BatchError: If there are not as many rows of outputs as targets.
    """
    if not outputs.ndim or len(outputs) != len(targets):
        raise BatchError(
            f"The model must return one row per sample, {len(targets)} here; got shape "
            f"{tuple(outputs.shape)}. Are there as many targets as inputs?"
        )
    _check_broadcast(outputs, targets)
    try:
        loss = loss_fn(outputs, targets)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise LossError(
            "`loss_fn` must take the model's outputs and the targets; on outputs of "
            f"shape {tuple(outputs.shape)} and targets {targets.dtype} "
            f"{tuple(targets.shape)} it raised {type(error).__name__}: {error}."
        ) from error
    if not isinstance(loss, Tensor):
        raise LossError(
            "`loss_fn` must return a tensor, so that it can be differentiated; got a "
            f"{type(loss).__name__}. Leave out `.item()` and `float(...)`."
        )
    if loss.ndim:
        raise LossError(
            "`loss_fn` must return one number for a batch; got shape "
            f"{tuple(loss.shape)}. Use reduction='mean' instead of 'none'."
        )


def check_reduction(
    loss_fn: LossFunction,
    outputs: Tensor,
    targets: Tensor,
    reduction: str,
    batches: int,
) -> None:
    """Check that a loss function reduces a batch as the caller says.

    Of a single batch the loss is taken as it is, if it does neither: it is the risk.

    Raises:
        LossError: If it does otherwise.
    """
    found = _reductions(loss_fn, outputs, targets)
    if reduction in found or (batches == 1 and found == {"other"}):
        return
    how = next(iter(found))
    advice = (
        f"Pass `reduction={how!r}` if that is meant."
        if how != "other"
        else "With class weights or `ignore_index`, for instance, its batches do not add "
        "up to the loss of the data: pass all data as one batch."
    )
    raise LossError(
        f"`loss_fn` must be a {reduction} over samples; this one {_HOW[how]}. {advice}"
    )


def _reductions(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> set[str]:
    """Return what a loss function may be doing, from the halves of a batch."""
    size = len(targets)
    if size < 2:
        return set(REDUCTIONS)
    cut = size // 2
    first = float(loss_fn(outputs[:cut], targets[:cut]))
    second = float(loss_fn(outputs[cut:], targets[cut:]))
    whole = float(loss_fn(outputs, targets))
    sums = {
        "mean": (first * cut + second * (size - cut)) / size,
        "sum": first + second,
    }
    scale = abs(first) + abs(second) + abs(whole)
    found = {
        name for name, value in sums.items() if abs(value - whole) <= _SAME * scale
    }
    return found or {"other"}


def has_own_parameters(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> bool:
    """Whether a loss depends on more than outputs and targets: weight decay, say."""
    with torch.enable_grad():
        return bool(loss_fn(outputs.detach(), targets).requires_grad)


def _check_broadcast(outputs: Tensor, targets: Tensor) -> None:
    same_count = outputs.numel() == targets.numel()
    if targets.is_floating_point() and same_count and outputs.shape != targets.shape:
        raise LossError(
            "Real targets must have the shape of the outputs, or a loss compares every "
            f"output with every target; got {tuple(targets.shape)} for outputs of shape "
            f"{tuple(outputs.shape)}. Reshape them, with `y.unsqueeze(1)` for instance."
        )
