"""Passes of a model over its data, each like the first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.extraction import Batches
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.nested import tensors

T = TypeVar("T")

# Sums of a batch in float64 agree to rounding when it is the same, on any device.
_SAME_INPUTS = 1e-9


@dataclass(frozen=True, eq=False)
class _RandomState:
    """The global random states, which a loader that shuffles draws from."""

    states: tuple[Any, Any, Tensor]

    @classmethod
    def now(cls) -> _RandomState:
        return cls((random.getstate(), np.random.get_state(), torch.get_rng_state()))

    def restore(self) -> None:
        random.setstate(self.states[0])
        np.random.set_state(self.states[1])
        torch.set_rng_state(self.states[2])


class Passes:
    """Runs a model over all batches of a loader, as often as wanted, in one order.

    The model is in eval mode only while it runs: between two batches it is as it was,
    and so are the global random states. A loader that draws from them shuffles alike in
    every pass.

    Args:
        model: The model.
        loader: Any iterable of batches.
        name: What the caller calls the loader, for messages.
        device: Where to move the batches; they stay where they are when omitted.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Attributes:
        first: The first batch with samples.
        repeatable: Whether the loader can be read again.

    Raises:
        BatchError: If the loader yields no sample.
        DeviceError: If the model is not on the device.
        TypeError: If the loader cannot be iterated.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        name: str = "loader",
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> None:
        if not (isinstance(loader, Iterable) or hasattr(loader, "__getitem__")):
            raise TypeError(
                f"`{name}` must be iterable, such as a DataLoader or a list of batches; "
                f"got a {type(loader).__name__}."
            )
        self._model, self._name = model, name
        with evaluating(model):
            self._start = _RandomState.now()
            self._batches = Batches(model, loader, name, device, progress)
            self._next = _RandomState.now()
        first = self._batches.first
        if first is None:
            raise BatchError(f"`{name}` must yield at least one sample.")
        self.first: Batch = first
        self.repeatable = self._batches.repeatable
        self._kept: list[Batch] | None = None
        self._labels: Tensor | None = None
        self._inputs: Tensor | None = None

    def run(
        self, step: Callable[[Batch], T], num_classes: int
    ) -> Iterator[tuple[T, Tensor]]:
        """Yield what a function makes of each batch, and the labels.

        Args:
            step: Called with each batch while the model is in eval mode.
            num_classes: The number of classes :math:`K`.

        Raises:
            BatchError: If a batch has another form, or the labels are not those of the
                first complete pass.
            LabelError: If labels are no class indices in :math:`[0, K)`.
            DeviceError: If a batch is not where the model is.
        """
        state, self._next = self._next, self._start
        batches = self._batches.run(num_classes) if self._kept is None else self._kept
        stream, labels, inputs = iter(batches), [], []
        while True:
            with evaluating(self._model):
                state.restore()
                batch = next(stream, None)
                value = None if batch is None else step(batch)
                state = _RandomState.now()
            if batch is None or value is None:
                break
            labels.append(batch.labels)
            if self._kept is None:
                inputs.append(_fingerprint(batch))
            yield value, batch.labels
        self._check_same(torch.cat(labels) if labels else torch.zeros(0).long())
        self._check_inputs(torch.tensor(inputs, dtype=torch.float64))

    def _check_inputs(self, inputs: Tensor) -> None:
        if self._kept is not None:
            return
        if self._inputs is None:
            self._inputs = inputs
        if not torch.allclose(inputs, self._inputs, _SAME_INPUTS, 0.0, equal_nan=True):
            raise BatchError(
                f"`{self._name}` must give the same inputs each time it is read; it gave "
                "others with the same labels. Leave out augmentation, or pass a larger "
                "`cache_bytes`."
            )

    def keep(self, batches: list[Batch]) -> None:
        """Read these from now on, all batches of a loader that can be read once."""
        self._kept = batches

    def _check_same(self, labels: Tensor) -> None:
        if self._labels is None:
            self._labels = labels
        if not torch.equal(labels, self._labels):
            raise BatchError(
                f"`{self._name}` must give the same samples in the same order each time "
                f"it is read; it gave other labels, {len(labels)} after "
                f"{len(self._labels)}. Pass one that does not shuffle, such as "
                "`DataLoader(dataset, shuffle=False)`, or a larger `cache_bytes`."
            )


def _fingerprint(batch: Batch) -> float:
    """Return a number that other inputs do not have, but for an unlikely chance."""
    values = [t for t in tensors((batch.args, batch.kwargs)) if not t.is_complex()]
    return sum(
        (k + 1) * float(t.detach().to(torch.float64).abs().sqrt().sum())
        for k, t in enumerate(values)
    )


def copied(batch: Batch) -> tuple[Batch, int]:
    """Return a batch in memory of its own, and the bytes that it takes."""
    own = deepcopy(batch)
    values = (own.args, own.kwargs, own.labels)
    return own, sum(tensor.nbytes for tensor in tensors(values))
