"""A model and a loss as a function of the flat parameter vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from layerpeel._checks import BatchError, LossError
from layerpeel.landscape.parameters import Parameters
from layerpeel.landscape.reduction import LossFunction
from layerpeel.measurement.sources.pairs import Pair


@cache
def _load_rules() -> None:
    """Let torch load its rules for forward mode, which it does with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


@contextmanager
def differentiable() -> Iterator[None]:
    """Let second derivatives through: some fast kernels have none.

    Whatever the caller switched off or on, no-grad and inference mode for instance, is
    as it was afterwards.
    """
    _load_rules()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def copied(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a model in a dtype, in eval mode, without gradients.

    Raises:
        ValueError: If the model cannot be copied.
    """
    try:
        copy = deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "`model` must be copyable, since it is never changed; `copy.deepcopy` raised "
            f"{type(error).__name__}: {error}. Old-style `weight_norm` is one cause: use "
            "`torch.nn.utils.parametrizations`."
        ) from error
    for module in copy.modules():
        module.training = False
    copy.to(dtype)
    for parameter in copy.parameters():
        parameter.grad = None
    return copy


def copied_loss(
    loss_fn: LossFunction, dtype: torch.dtype, device: torch.device
) -> LossFunction:
    """Return a loss function whose tensors are of a dtype; one that is no module as is.

    Class weights are in the precision of training, while the outputs are not.
    """
    if not isinstance(loss_fn, nn.Module):
        return loss_fn
    try:
        return deepcopy(loss_fn).to(device, dtype)
    except (RuntimeError, TypeError):
        # It holds what cannot be copied, and may work nevertheless.
        return loss_fn


@dataclass(frozen=True, eq=False)
class Functional:
    """The outputs and the loss of batches as functions of the parameter vector.

    Attributes:
        model: A copy of the caller's model, in eval mode.
        loss_fn: Takes outputs and targets, returns a scalar.
        parameters: Where parameters are in the vector.
        forward_mode: Whether second derivatives go forward over reverse; else twice
            reverse, which more operations of torch can do.
    """

    model: nn.Module
    loss_fn: LossFunction
    parameters: Parameters
    forward_mode: bool = True

    def outputs(self, vector: Tensor, batch: Pair) -> Tensor:
        """Return the outputs: a tensor, or the logits of what has some.

        Raises:
            BatchError: If the model does not run on the batch, or gives no tensor.
        """
        # Copies: a model that counts its calls would change what was captured.
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        state = {**buffers, **self.parameters.unflat(vector)}
        found = functional_call(self.model, state, batch.args, dict(batch.kwargs))
        outputs = _logits_of(found)
        if isinstance(outputs, Tensor):
            return outputs
        raise BatchError(
            "The model must return a tensor, an object or mapping with `logits`, or a "
            f"tuple that begins with them; got {type(found).__name__}."
        )

    def loss(self, vector: Tensor, batch: Pair) -> Tensor:
        """Return the loss of a batch."""
        value: Tensor = self.loss_fn(self.outputs(vector, batch), batch.target)
        return value

    def gradient(self, vector: Tensor, batch: Pair) -> Tensor:
        """Return the gradient of the loss of a batch."""
        return self._gradient_of(batch)(vector)

    def product(self, vector: Tensor, batch: Pair, direction: Tensor) -> Tensor:
        """Return the Hessian of the loss of a batch, times a direction."""
        gradient = self._gradient_of(batch)
        if self.forward_mode:
            product: Tensor = _pushed(gradient, vector, direction)[1]
            return product
        # The Hessian is symmetric: its transpose is as good.
        return self._pulled(gradient, vector, direction)

    def second_derivative(
        self, vector: Tensor, batch: Pair, direction: Tensor
    ) -> Tensor:
        r"""Return :math:`v^\top H v` of a batch, without the Hessian's product.

        It is the second derivative of the loss along the direction, twice reverse. Not
        twice forward: there torch 2.13 gives wrong numbers for layer normalisation.
        """

        def along(step: Tensor) -> Tensor:
            return self.loss(vector + step * direction, batch)

        found: Tensor = grad(grad(along))(vector.new_zeros(()))
        return found

    def magnitude(self, vector: Tensor, batch: Pair, direction: Tensor) -> Tensor:
        r"""Return the size of the terms that the curvature of a batch is a sum of.

        These are those of :math:`\dot f^\top \nabla^2 \ell\, \dot f` and of
        :math:`\nabla \ell \cdot \ddot f`, over samples and outputs; also with the
        outputs scaled down to at most one, since what a loss of large logits returns is
        a small difference of such terms. A size, and no more.
        """

        def along(step: Tensor) -> Tensor:
            return self.outputs(vector + step * direction, batch)

        zero, one = vector.new_zeros(()), vector.new_ones(())

        def moving(step: Tensor) -> tuple[Any, Any]:
            return _pushed(along, step, one)

        (outputs, first), (_, second) = _pushed(moving, zero, one)
        slope = grad(lambda f: self.loss_fn(f, batch.target))
        total = vector.new_zeros(())
        for place in (outputs, outputs / outputs.abs().max().clamp(min=1.0)):
            slopes, bends = _pushed(slope, place, first)
            total = total + ((bends * first).abs() + (slopes * second).abs()).sum()
        return total

    def supported(self, vector: Tensor, batch: Pair) -> Functional:
        """Return the functional with the first kind of derivative that is right.

        Raises:
            LossError: If there is none.
        """
        if self._failure(vector, batch) is None:
            return self
        other = replace(self, forward_mode=False)
        failure = other._failure(vector, batch)
        if failure is None:
            return other
        raise LossError(
            "The loss must be twice differentiable by torch; "
            f"{type(failure).__name__}: {failure} Replace the operation that is at fault."
        ) from failure

    def _failure(self, vector: Tensor, batch: Pair) -> Exception | None:
        """Return why second derivatives cannot be had, if so."""
        generator = torch.Generator().manual_seed(0)
        u, v = (
            torch.randn(len(vector), generator=generator, dtype=vector.dtype).to(vector)
            for _ in range(2)
        )
        try:
            Hu, Hv = (self.product(vector, batch, w) for w in (u, v))
            size = Hu.norm() * v.norm() + Hv.norm() * u.norm()
            if self.forward_mode:
                # Of terms that cancel, rounding is left.
                size = size + self.magnitude(vector, batch, u)
        except (NotImplementedError, RuntimeError) as error:
            return error
        tolerance = math.sqrt(torch.finfo(vector.dtype).eps) * float(size)
        # With NaN it cannot be told; others say so.
        if not abs(float(u @ Hv - v @ Hu)) > tolerance:
            return None
        return LossError(
            "what torch gives as the Hessian is not symmetric, so that a second "
            "derivative is wrong. That of `weight_norm` is, in torch 2.13."
        )

    def _gradient_of(self, batch: Pair) -> Callable[[Tensor], Tensor]:
        return grad(lambda vector: self.loss(vector, batch))

    def _pulled(
        self, gradient: Callable[[Tensor], Tensor], vector: Tensor, direction: Tensor
    ) -> Tensor:
        pull: Callable[..., Any] = vjp(gradient, vector)[1]
        product: Tensor = pull(direction)[0]
        return product


def _pushed(
    function: Callable[..., Any], at: Tensor, direction: Tensor
) -> tuple[Any, Any]:
    """Return what a function returns, and its derivative along a direction."""
    found: tuple[Any, ...] = jvp(function, (at,), (direction,))
    return found[0], found[1]


def _logits_of(output: Any) -> Any:  # noqa: ANN401 - a model returns anything
    if isinstance(output, Mapping):
        return output.get("logits")
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output:
        return output[0]
    return output
