"""What a model returns on batches, inside as well, as far as it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel.edits.data import Batch
from layerpeel.edits.passes import hooked
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.nested import tensors

# What is kept of a pass takes no more than this; beyond, the model is run again.
MOST_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of a batch.

    Attributes:
        batch: The batch.
        features: What some layer read; ``None`` if that was not looked at.
        output: What the model returned.
        returned: What some layers returned, by path.
    """

    batch: Batch
    features: Tensor | None
    output: Tensor
    returned: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The size in bytes."""
        given = (self.batch.args, dict(self.batch.kwargs), self.batch.target)
        found = (given, self.features, self.output, dict(self.returned))
        return sum(tensor.nbytes for tensor in tensors(found))

    def rest(self) -> Batch:
        """Return a batch of the features alone."""
        assert self.features is not None
        # A copy, as a model may work in place.
        return replace(self.batch, args=(self.features.clone(),), kwargs={})


class Recorder:
    """Runs a model in eval mode, without gradients, and looks into it.

    Args:
        model: The model.
        paths: The layers whose returns to look at.
        source: The layer whose input to look at, if one is given.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> batch = Batch((torch.ones(4, 2),), {}, torch.zeros(4))
        >>> with Recorder(model, ["0"]) as recorder:
        ...     kept = recorder.run(batch)
        >>> kept.returned["0"].shape, bool((kept.output == kept.returned["0"].relu()).all())
        (torch.Size([4, 3]), True)
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str] = (), source: str | None = None
    ) -> None:
        self._model, self._paths, self._source = model, tuple(paths), source
        self._stack = ExitStack()
        self._features: Tensor | None = None
        self._returned: dict[str, Tensor] = {}

    def __enter__(self) -> Recorder:
        self._stack.enter_context(evaluating(self._model))
        self._stack.enter_context(torch.no_grad())
        for path in dict.fromkeys(self._paths):
            self._hook(path, partial(self._keep, path))
        if self._source is not None:
            self._hook(self._source, self._read)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, batch: Batch, model: nn.Module | None = None) -> Kept:
        """Run the model, or a part of it that shares its modules, on a batch."""
        self._returned, self._features = {}, None
        # Copies, here and below: what follows may work in place.
        output = batch.run(self._model if model is None else model).detach().clone()
        return Kept(batch, self._features, output, self._returned)

    def _hook(self, path: str, hook: Any) -> None:  # noqa: ANN401 - any hook
        self._stack.enter_context(hooked(self._model.get_submodule(path), hook))

    def _keep(self, path: str, _: nn.Module, __: object, output: Tensor) -> None:
        self._returned[path] = output.detach().clone()

    def _read(self, _: nn.Module, args: tuple[Any, ...], __: object) -> None:
        self._features = args[0].detach().clone()


class Keeper:
    """Keeps what a model returned on all batches, if that is not too much.

    Args:
        most: The most bytes to keep; beyond, nothing is kept at all.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._size = most, 0
        self._kept: list[Kept] = []

    @property
    def full(self) -> bool:
        """Whether there was too much."""
        return self._size > self._most

    @property
    def kept(self) -> tuple[Kept, ...]:
        """All batches, or none."""
        return tuple(self._kept)

    def add(self, kept: Kept) -> None:
        """Keep one batch more."""
        self._size += kept.size
        if self.full:
            self._kept.clear()
        else:
            self._kept.append(kept)
