"""The inputs of the head that a measurement computes, seen while it computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from layerpeel.measurement.distributed.reducer import AbstractReducer
from layerpeel.measurement.shared_data import SharedData
from layerpeel.measurement.sources.batches import unpack
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.head import Head
from layerpeel.measurement.sources.nested import tensors
from layerpeel.measurement.tracking.running import nearest


class HeadRows:
    """Stands for a loader, and tells the features that a model makes of its batches.

    Whoever reads the batches in order and runs the model on each does so as ever: what
    the model did last before the next batch is asked for, it did on this one. Only the
    first pass is told. Hooks are set within the context.

    Args:
        model: The model that is run.
        head: Its head.
        batches: The loader, which can be read again.
        see: Called with features, on the CPU, and labels of each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear,
        batches: Iterable[Any],
        see: Callable[[Tensor, Tensor], None],
    ) -> None:
        self._model, self._head = model, head
        self._batches, self._see = batches, see
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._features: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._read = False

    def __len__(self) -> int:
        """The number of batches, where the loader has one."""
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches as they are."""
        first, self._read = not self._read, True
        for raw in self._batches:
            self._features = None
            yield raw
            if first and self._features is not None:
                self._see(self._features, unpack(raw).labels)

    def __enter__(self) -> HeadRows:
        # The head first: where it is the model itself, its call is seen before its end.
        self._handles = [
            self._head.register_forward_hook(self._at_head, with_kwargs=True),
            self._model.register_forward_hook(self._after),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _at_head(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Tensor,
    ) -> None:
        features = next(tensors((args, kwargs)))
        self._calls.append((features.detach(), output.detach()))

    def _after(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        output: Any,  # noqa: ANN401 - a model may return anything
    ) -> None:
        self._features = nearest(self._calls, output)
        self._calls.clear()


def first_head(
    model: nn.Module,
    batches: Iterable[Any],
    path: str | None,
    together: AbstractReducer,
    device: str | torch.device | None,
) -> Head:
    """Return the head of a model, found or verified on the first batch.

    Args:
        model: The model.
        batches: Its data.
        path: The head's path, if it is known.
        together: The processes that measure together.
        device: Where to move the batch; it stays where it is if ``None``.

    Raises:
        LayerpeelError: As ``layerpeel.measure`` does.
    """
    with evaluating(model):
        data = SharedData(model, together, device, False)
        return data.head(data.batches(batches, "loader"), path)
