"""Running a model that is not ours: nothing of it may change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError, HeadError, listed
from layerpeel.measurement.sources.batches import Batch


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        path: The module's path in the model.
        inputs: Its arguments, keyword arguments last.
        output: What it returned.
    """

    path: str
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every module back as it was.

    Only the flags are set: a model's own ``train`` method may do more than that, such
    as merging weights. Global random states are put back as well, so that a measurement
    in the middle of training, whose loader shuffles, does not change the training.
    """
    was_training = [(module, module.training) for module in model.modules()]
    cuda = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    states = random.getstate(), np.random.get_state()
    try:
        for module, _ in was_training:
            module.training = False
        with torch.random.fork_rng(devices=list(cuda)):
            yield
    finally:
        for module, flag in was_training:
            module.training = flag
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def recorded_calls(
    modules: Mapping[str, nn.Module], copy: Callable[[Any], Any] = lambda value: value
) -> Iterator[list[Call]]:
    """Record the calls of some modules, in execution order, until the context ends.

    Args:
        modules: The modules to watch, by path.
        copy: Applied to inputs and outputs; needed where later modules work in place.
    """
    calls: list[Call] = []

    def hook_of(path: str) -> Callable[..., None]:
        def hook(
            module: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            output: Any,  # noqa: ANN401 - a module may return anything
        ) -> None:
            calls.append(Call(path, copy((*args, *kwargs.values())), copy(output)))

        return hook

    handles = [
        module.register_forward_hook(hook_of(path), with_kwargs=True)
        for path, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits of a batch, with shape :math:`(B, K)`.

    Raises:
        BatchError: If the model does not run on the batch.
        HeadError: If the model's output holds no logits of that form.
    """
    # Not inference mode: a model that caches a tensor on its first call, a rotary
    # embedding say, could not be trained with it afterwards.
    with torch.no_grad():
        try:
            output = model(*batch.args, **batch.kwargs)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise BatchError(_refused(batch, error)) from error
    logits = _logits_of(output)
    if not isinstance(logits, Tensor):
        raise HeadError(
            "The model must return logits: a tensor, an object or mapping with "
            f"`logits`, or a tuple that begins with them; got {type(output).__name__}."
        )
    if logits.ndim != 2 or len(logits) != len(batch.labels):
        raise HeadError(
            "The model must return one row of logits per sample, with shape "
            f"({len(batch.labels)}, K) here; got {tuple(logits.shape)}. Are there as many "
            "labels as inputs?"
        )
    return logits


def _refused(batch: Batch, error: Exception) -> str:
    named = {str(k): v for k, v in (*enumerate(batch.args), *batch.kwargs.items())}
    shown = [
        f"{name}: {value.dtype} {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"{name}: {type(value).__name__}"
        for name, value in named.items()
    ]
    return (
        "The model must run on the batches as the loader gives them; on one with inputs "
        f"{listed(shown)} it raised {type(error).__name__}: {error}. Let the loader give "
        "what the model takes: tensors of its dtype, shape and argument names."
    )


def _logits_of(output: object) -> object:
    if isinstance(output, Mapping):
        return output.get("logits")
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and output:
        return output[0]
    return output
