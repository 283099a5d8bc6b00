"""Passes over the data: ranges of rows, gradients; what an edit may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import EditError, LossError
from layerpeel.edits.data import Batch, Data
from layerpeel.edits.loss import LossFunction
from layerpeel.measurement.sources.forward import evaluating


@dataclass(frozen=True, eq=False)
class Range:
    """The least and the largest value of each neuron, or channel.

    Attributes:
        low: The least values.
        high: The largest values.
    """

    low: Float64[Tensor, " m"]
    high: Float64[Tensor, " m"]

    @classmethod
    def of(cls, rows: Tensor) -> Range:
        """Return the range of some rows."""
        return cls(*(value.double().cpu() for value in rows.aminmax(dim=0)))

    def merge(self, other: Range) -> Range:
        """Return the range of both."""
        low = torch.minimum(self.low, other.low)
        return Range(low, torch.maximum(self.high, other.high))


@dataclass(frozen=True)
class Change:
    """How far the outputs of two models are apart.

    Attributes:
        largest: The largest difference of an entry.
        scale: The largest entry of the first model's outputs.
        samples: The number of samples.
    """

    largest: float
    scale: float
    samples: int


class EnoughSeen(BaseException):
    """Ends a forward pass at the layer that was asked for; models do not catch it."""


def rows_of(values: Tensor, module: nn.Module) -> Tensor:
    """Return one row per sample and place, with a column per neuron or channel."""
    if isinstance(module, nn.Conv2d):
        values = values.movedim(-3, -1)
    return values.reshape(-1, values.shape[-1])


def repeats(module: nn.Module) -> int:
    """Return how often a place is read at most with the same tap of a convolution.

    Zeros beyond the border repeat nothing. Of other paddings, a tap that sees no more
    places than there are meets mirrored ones twice at most, repeated ones by the padding
    of one side, and those of a circle once; else whatever the two sides have of it.
    """
    if not isinstance(module, nn.Conv2d) or module.padding_mode == "zeros":
        return 1
    found = 1
    for axis, size in enumerate(module.kernel_size):
        reach = module.dilation[axis] * (size - 1)
        if isinstance(module.padding, str):
            side = 0 if module.padding == "valid" else -(-reach // 2)
            within = True
        else:
            side = module.padding[axis]
            within = 2 * side <= reach
        most = {"circular": (1, 3), "reflect": (2, 3)}.get(
            module.padding_mode, (1 + side, 1 + 2 * side)
        )
        found *= most[0 if within else 1] if side else 1
    return found


def check_outputs(model: nn.Module, change: Change) -> None:
    """Check that a model gives the outputs of another one, where it must.

    Raises:
        EditError: If they differ by more than rounding.
    """
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    # Half of the digits: far above rounding, and far below any other function.
    allowed = max(torch.finfo(d).eps for d in dtypes) ** 0.5 * max(change.scale, 1.0)
    if not change.largest <= allowed:
        raise EditError(
            f"The edited model must give the outputs of the given one; they differ by "
            f"{change.largest:.3g} of {change.scale:.3g}. Does its forward pass depend on "
            "its training flag, or on the values of its input?"
        )


def gradient_norm(model: nn.Module, loss_fn: LossFunction, data: Data) -> float:
    """Return the Euclidean norm of the gradient of the risk, in float64.

    Raises:
        LossError: If the loss function gives no finite scalar with a gradient.
    """
    copy = deepcopy(model).double()
    parameters = [p for p in copy.parameters() if p.requires_grad]
    if not parameters:
        return 0.0
    total, weights = [torch.zeros_like(p) for p in parameters], 0.0
    with evaluating(copy):
        for batch in data:
            loss, weight = weighted_loss(copy, loss_fn, batch)
            weights += weight
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for sum_, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    sum_ += weight * gradient
    divisor = 1.0 if is_sum(loss_fn) else weights
    return float(torch.stack([t.norm() for t in total]).norm()) / divisor


def gradient_norms(
    before: nn.Module, after: nn.Module, loss_fn: LossFunction | None, data: Data | None
) -> tuple[float, float] | tuple[None, None]:
    """Return the norms of two models' gradients; nothing without a loss or data."""
    if loss_fn is None or data is None:
        return None, None
    return gradient_norm(before, loss_fn, data), gradient_norm(after, loss_fn, data)


def weighted_loss(
    model: nn.Module, loss_fn: LossFunction, batch: Batch
) -> tuple[Tensor, float]:
    """Return the loss of a batch in float64, and its weight among the batches.

    Raises:
        LossError: If the loss function gives no finite scalar with a gradient.
    """
    double = batch.double()
    with torch.enable_grad():
        loss = loss_fn(double.run(model), double.target)
    if not isinstance(loss, Tensor) or loss.ndim > 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise LossError(
            f"`loss_fn` must return a scalar, the mean over the batch; got {got}. Use "
            "the reduction 'mean', not 'none'."
        )
    if not loss.requires_grad or not bool(loss.isfinite()):
        raise LossError(
            f"`loss_fn` must return a finite loss that depends on the outputs; got {loss}."
        )
    return loss, 1.0 if is_sum(loss_fn) else float(batch.size)


def is_sum(loss_fn: LossFunction) -> bool:
    """Whether a loss function says of itself that it sums over the samples."""
    return getattr(loss_fn, "reduction", "mean") == "sum"


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Call a function after each forward pass of a module, within the context.

    Arguments that are given by name are among the others.
    """

    def call(
        called: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Any,  # noqa: ANN401 - modules return anything
    ) -> Any:  # noqa: ANN401 - and may be made to return anything else
        return hook(called, (*args, *kwargs.values()), output)

    handle = module.register_forward_hook(call, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
