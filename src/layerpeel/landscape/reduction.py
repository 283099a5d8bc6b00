"""How a loss function reduces a batch to one number: told by what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        LossError: If it does not run, gives no scalar or none with a gradient, or targets
            would be broadcast.
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
            f"{tuple(targets.shape)} it raised {type(error).__name__}: {error}. Tensors "
            f"of its own, such as class weights, must be {outputs.dtype} too."
        ) from error
    if not isinstance(loss, Tensor):
        raise LossError(
            "`loss_fn` must return a tensor, so that it can be differentiated; got a "
            f"{type(loss).__name__}. Leave out `.item()` and `float(...)`."
        )
    if not _depends(loss_fn, outputs, targets):
        raise LossError(
            "`loss_fn` must depend on the outputs through differentiable operations; no "
            "gradient goes through this one. Leave out `detach()`, `argmax` and "
            "`no_grad`."
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
    found = reductions(loss_fn, outputs, targets)
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


def check_batches(
    loss_fn: LossFunction, pairs: Sequence[tuple[Tensor, Tensor]], reduction: str
) -> None:
    """Check that the losses of batches add up to that of all data as one batch.

    Halves of one batch may have the same class weights by chance.

    Args:
        loss_fn: The loss.
        pairs: Outputs and targets of all batches.
        reduction: What it should do over samples.

    Raises:
        LossError: If they do not, as with class weights.
    """
    if len({(f.shape[1:], y.shape[1:]) for f, y in pairs}) != 1 or len(pairs) == 1:
        return
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    sizes = [len(y) / len(targets) if reduction == "mean" else 1.0 for _, y in pairs]
    parts = [s * float(loss_fn(*pair)) for s, pair in zip(sizes, pairs, strict=True)]
    whole = float(loss_fn(outputs, targets))
    if abs(sum(parts) - whole) > _SAME * (sum(map(abs, parts)) + abs(whole)):
        raise LossError(
            f"`loss_fn` must be a {reduction} over samples; the losses of the batches do "
            f"not add up to that of all data, {sum(parts):.6g} instead of {whole:.6g}. "
            "With class weights, for instance, they do not: pass all data as one batch."
        )


def reductions(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> set[str]:
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


def _depends(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> bool:
    with torch.enable_grad():
        # Not the leaf itself: a loss may work in place.
        probe = outputs.detach().requires_grad_().clone()
        return bool(loss_fn(probe, targets).requires_grad)


def _check_broadcast(outputs: Tensor, targets: Tensor) -> None:
    same_count = outputs.numel() == targets.numel()
    if targets.is_floating_point() and same_count and outputs.shape != targets.shape:
        raise LossError(
            "Real targets must have the shape of the outputs, or a loss compares every "
            f"output with every target; got {tuple(targets.shape)} for outputs of shape "
            f"{tuple(outputs.shape)}. Reshape them, with `y.unsqueeze(1)` for instance."
        )
