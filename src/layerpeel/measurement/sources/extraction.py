"""A model and its data as a source of features, labels and logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from operator import length_hint
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError
from layerpeel._progress import track
from layerpeel.measurement.sources.batches import Batch, unpack
from layerpeel.measurement.sources.device import check_batch, check_device
from layerpeel.measurement.sources.head import Head
from layerpeel.measurement.sources.rows import Rows


@runtime_checkable
class Observer(AbstractContextManager[Any], Protocol):
    """Looks on while a model runs: a context around each forward pass."""

    def fold(self, labels: Tensor) -> None:
        """Be told the classes of the samples of the pass just made."""

    def check_finite(self) -> None:
        """Raise if a layer had NaN or infinite values, once all was seen."""


class Batches:
    """The batches of a loader, ready for a model, with a look at the first of them.

    Args:
        model: The model they are for; it is only asked where it is.
        loader: Any iterable of batches.
        name: What the caller calls the loader, for messages.
        device: Where to move the batches; they stay where they are when omitted.
        progress: Whether to show a progress bar; on a terminal when omitted.
        may_be_empty: Whether there may be no sample, as in a share of the data.

    Attributes:
        first: The first batch with samples; ``None`` without any.
        repeatable: Whether the loader can be read again.

    Raises:
        BatchError: If the loader yields no sample and must.
        DeviceError: If the model is not on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        name: str = "loader",
        device: str | torch.device | None = None,
        progress: bool | None = None,
        *,
        may_be_empty: bool = False,
    ) -> None:
        self._model, self._loader, self._name = model, loader, name
        self._device = device if device is None else check_device(model, device)
        self._progress = progress
        rest = iter(loader)
        self.repeatable = rest is not loader
        first = next((raw for raw in rest if len(unpack(raw).labels)), None)
        if first is None and not may_be_empty:
            raise BatchError(
                f"`{name}` must yield at least one sample; it yielded none. A "
                "generator that was iterated before is exhausted: make it anew, or "
                "pass a list or DataLoader."
            )
        self.first = None if first is None else self._ready(unpack(first))
        # The first pass goes on where this look stopped: a generator has no second one.
        begun = () if first is None else (first,)
        self._begun: Iterable[Any] | None = chain(begun, rest)

    def run(self, num_classes: int) -> Iterator[Batch]:
        """Yield the batches of one pass, with their labels checked.

        Raises:
            BatchError: If a batch has another form.
            LabelError: If labels are no class indices in :math:`[0, K)`.
            DeviceError: If a batch is not where the model is.
        """
        raws = self._loader if self._begun is None else self._begun
        self._begun = None
        # A DataLoader over a stream has `__len__`, which raises: no length, then.
        total = length_hint(self._loader) or None
        for raw in track(
            raws, f"Measuring {self._name}", total=total, show=self._progress
        ):
            batch = unpack(raw, num_classes)
            if len(batch.labels):
                yield self._ready(batch)

    def _ready(self, batch: Batch) -> Batch:
        if self._device is not None:
            return batch.to(self._device)
        check_batch(self._model, batch)
        return batch


@dataclass(frozen=True, eq=False)
class ModelRows:
    """A source of rows: each call runs the model over all batches.

    A call may be given an observer, which then sees the layers of the model.

    Attributes:
        model: The model, in eval mode.
        head: Its head.
        batches: Its data.
        num_classes: The number of classes :math:`K`.
    """

    model: nn.Module
    head: Head
    batches: Batches
    num_classes: int

    def __call__(self, observer: Observer | None = None) -> Iterator[Rows]:
        """Yield features, labels and logits, batch by batch.

        Raises:
            LayerError: If the observer cannot measure a layer.
            NonFiniteError: If a layer that is observed has NaN or infinite values.
        """
        for batch in self.batches.run(self.num_classes):
            with nullcontext() if observer is None else observer:
                features, logits = self.head.run(self.model, batch)
            if observer is not None:
                observer.fold(batch.labels)
            yield Rows(features, batch.labels, logits)
        if observer is not None:
            # Before the rows are judged: this names the first layer, not the last.
            observer.check_finite()
