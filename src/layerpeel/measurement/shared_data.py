"""The data of a model as several processes share them, or as one has them alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from layerpeel._checks import BatchError
from layerpeel.measurement.distributed.reducer import AbstractReducer
from layerpeel.measurement.files.digest import content_digest
from layerpeel.measurement.sources.extraction import Batches
from layerpeel.measurement.sources.head import Head, find_head, linear_modules
from layerpeel.measurement.sources.layer import Layer


@dataclass(frozen=True, eq=False)
class SharedData:
    """What a process needs to measure its share, in step with the others.

    Every process makes the same calls in the same order; each of them waits for all.

    Attributes:
        model: The model, in eval mode.
        together: The processes.
        device: Where to move the batches; they stay where they are if ``None``.
        progress: Whether to show a progress bar; on a terminal if ``None``, and never
            in another process than the first.
    """

    model: nn.Module
    together: AbstractReducer
    device: str | torch.device | None
    progress: bool | None

    def batches(self, loader: Iterable[Any], name: str) -> Batches:
        """Return the share of this process; it may be empty if there are others."""
        shared = self.together.data(loader)
        with self.together.errors():
            return Batches(
                self.model,
                shared,
                name,
                self.device,
                False if self.together.rank else self.progress,
                may_be_empty=self.together.size > 1,
            )

    def head(self, batches: Batches, path: str | None) -> Head:
        """Return the head that all processes find; those without data take it over.

        Raises:
            BatchError: If no process has data.
            HeadError: If there is no head, or the named one is none.
            RankError: If another process raised, or found another one.
        """
        with self.together.errors():
            first = batches.first
            found = None if first is None else find_head(self.model, first, path)
        agreed = self.together.common("head", None if found is None else found.path)
        if agreed is None:
            raise BatchError(
                "`loader` must yield at least one sample on some rank; it yielded none."
            )
        return found or Head(agreed, linear_modules(self.model)[agreed])

    def check_common(self, layer: Layer) -> None:
        """Check that all processes measure the same last layer.

        Raises:
            RankError: If another one has other weights or names.
        """
        tensors = {"weight": layer.weight}
        if layer.bias is not None:
            tensors["bias"] = layer.bias
        self.together.common("last layer", content_digest({}, tensors))
        self.together.common("class names", list(layer.class_names))


def bare(model: object) -> nn.Module:
    """Return a model without the wrapper that makes processes wait for each other.

    Raises:
        TypeError: If it is no module, or its parameters are scattered over processes.
    """
    if isinstance(model, DistributedDataParallel):
        # Its forward pass sends buffers around, which ranks without data do not make.
        inner: nn.Module = model.module
        return inner
    # By name: importing the class costs more than most measurements.
    if type(model).__name__ == "FullyShardedDataParallel":
        raise TypeError(
            "`model` must have its parameters on every rank; they are sharded (FSDP). "
            "Gather the full state dict into a model of its own, and measure that."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a torch.nn.Module; got {type(model).__name__}. For features "
            "of another framework, call `measure_features`."
        )
    return model
