"""A model and its data as a source of features, labels and logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import length_hint
from typing import Any

import torch
from torch import nn

from layerpeel._checks import BatchError
from layerpeel._progress import track
from layerpeel.measurement.sources.batches import Batch, unpack
from layerpeel.measurement.sources.device import check_batch, check_device
from layerpeel.measurement.sources.head import Head
from layerpeel.measurement.sources.rows import Rows


class Batches:
    """The batches of a loader, ready for a model, with a look at the first of them.

    Args:
        model: The model they are for; it is only asked where it is.
        loader: Any iterable of batches.
        name: What the caller calls the loader, for messages.
        device: Where to move the batches; they stay where they are when omitted.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Raises:
        BatchError: If the loader yields no sample.
        DeviceError: If the model is not on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        name: str = "loader",
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> None:
        self._model, self._loader, self._name = model, loader, name
        self._device = device if device is None else check_device(model, device)
        self._progress = progress
        rest = iter(loader)
        self.repeatable = rest is not loader
        first = next((raw for raw in rest if len(unpack(raw).labels)), None)
        if first is None:
            raise BatchError(
                f"`{name}` must yield at least one sample; it yielded none. A "
                "generator that was iterated before is exhausted: make it anew, or "
                "pass a list or DataLoader."
            )
        self.first = self._ready(unpack(first))
        # The first pass goes on where this look stopped: a generator has no second one.
        self._begun: Iterable[Any] | None = chain([first], rest)

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

    def __call__(self) -> Iterator[Rows]:
        """Yield features, labels and logits, batch by batch."""
        for batch in self.batches.run(self.num_classes):
            features, logits = self.head.run(self.model, batch)
            yield Rows(features, batch.labels, logits)
