"""The loader's batches, as edits run models on them: once to look, once to check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError, NonFiniteError, all_finite
from layerpeel.measurement.sources.device import model_device
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.nested import moved, tensors
from layerpeel.measurement.sources.pairs import (
    Pair,
    arguments,
    check_found,
    check_iterable,
    split,
    target_tensor,
)

# What models raise on batches that they do not take. A pass that was traced without an
# argument asserts that it stays away.
_REFUSALS = (
    *(AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError),
)


class Batch(Pair):
    """One batch, to run models on."""

    def double(self) -> Batch:
        """Return the batch with floating numbers in float64."""
        kwargs = {key: _doubled(item) for key, item in self.kwargs.items()}
        return Batch(
            tuple(_doubled(a) for a in self.args), kwargs, _doubled(self.target)
        )

    def run(self, model: nn.Module) -> Tensor:
        """Return the first tensor that the model returns.

        Raises:
            BatchError: If the model does not run on the batch, or returns none.
        """
        try:
            output = model(*self.args, **self.kwargs)
        except _REFUSALS as error:
            raise BatchError(
                "The model must run on the batches as the loader gives them; it raised "
                f"{type(error).__name__}: {error}. Let the loader give what the model "
                "takes: tensors of its dtype, shape and argument names."
            ) from error
        found = next(tensors(getattr(output, "logits", output)), None)
        if found is None:
            raise BatchError(
                f"The model must return a tensor; got a {type(output).__name__}."
            )
        return found


class Data:
    """A loader that is read several times.

    Args:
        loader: Batches ``(input, target)``, where a mapping as input becomes keyword
            arguments; or mappings with ``"labels"`` or ``"label"``.
        model: The batches go where it is.

    Raises:
        BatchError: If a batch has another form, or there is no sample.
    """

    def __init__(self, loader: Iterable[Any], model: nn.Module) -> None:
        check_iterable(loader)
        # An iterator has no second pass: what it yields is kept.
        self._loader = list(loader) if isinstance(loader, Iterator) else loader
        self._device = model_device(model) or torch.device("cpu")

    def __iter__(self) -> Iterator[Batch]:
        """Read the batches that hold samples."""
        found = False
        for raw in self._loader:
            batch = self._batch(raw)
            if batch.size:
                found = True
                yield batch
        check_found(found)

    @property
    def loader(self) -> Iterable[Any]:
        """The loader, or what it yielded if it has no second pass."""
        return self._loader

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments that the first batch gives by name."""
        # Global random states stay as they are in this context: loaders draw from them.
        with evaluating(nn.Identity()):
            return tuple(next(iter(self)).kwargs)

    def _batch(self, raw: object) -> Batch:
        inputs, targets = split(raw)
        target = target_tensor(targets).to(self._device)
        inputs = moved(inputs, self._device)
        _check_finite(inputs)
        return Batch(*arguments(inputs), target)


def _check_finite(inputs: object) -> None:
    for tensor in tensors(inputs):
        if not all_finite(tensor):
            raise NonFiniteError(
                "The inputs must be finite; a batch holds NaN or infinity. Clean the "
                "data, or leave those samples out."
            )


def _doubled(value: Any) -> Any:  # noqa: ANN401 - keeps its type
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return value
