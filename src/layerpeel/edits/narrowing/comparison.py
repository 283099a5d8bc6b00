"""A narrower model beside the one that it is of, measured on the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import undefined
from layerpeel.edits.data import Data
from layerpeel.edits.narrowing.spread import Spread, relative
from layerpeel.edits.passes import Change, hooked, rows_of
from layerpeel.measurement.sources.forward import evaluating


@dataclass(frozen=True)
class Comparison:
    """How far a narrower model is from the one that it is of.

    Attributes:
        outputs: The largest change of an output of the model.
        relative: Root mean square change of what the consumers return, relative to that
            of what they return about its mean.
        agreement: Share of samples with the same largest output; ``None`` if the model
            returns no rows with several columns.
    """

    outputs: Change
    relative: float
    agreement: float | None

    @property
    def finite(self) -> bool:
        """Whether all outputs are finite."""
        return math.isfinite(self.outputs.largest)


def compared(
    before: nn.Module, after: nn.Module, paths: Sequence[str], data: Data
) -> Comparison:
    """Run two models on the data.

    Args:
        before: The wide model.
        after: The narrow one.
        paths: The consumers of the layer.
        data: The data.
    """
    largest, scale, samples, agreeing, energy = 0.0, 0.0, 0, 0.0, 0.0
    spreads = {path: Spread() for path in paths}
    with ExitStack() as stack:
        old, new = (stack.enter_context(_Returned(m, paths)) for m in (before, after))
        stack.enter_context(torch.no_grad())
        for batch in data:
            was = batch.run(before).double().clone()
            now = batch.run(after).double()
            largest = max(largest, float((now - was).abs().max()))
            scale = max(scale, float(was.abs().max()))
            samples += batch.size
            agreeing += _agreeing(was, now)
            for path in paths:
                spreads[path].add(old.rows[path])
                moved = new.rows[path].double() - old.rows[path].double()
                energy += float(moved.square().sum())
    agreement = None if math.isnan(agreeing) else agreeing / samples
    change = _relative(math.sqrt(energy), list(spreads.values()))
    return Comparison(Change(largest, scale, samples), change, agreement)


class _Returned:
    """Holds what some modules of a model returned last, in eval mode."""

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self._model, self._paths = model, paths
        self.rows: dict[str, Tensor] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Returned:
        self._stack.enter_context(evaluating(self._model))
        for path in self._paths:
            module = self._model.get_submodule(path)
            self._stack.enter_context(hooked(module, self._hook(path)))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _hook(self, path: str) -> Any:  # noqa: ANN401 - a hook
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            # A copy: an activation may work in place.
            self.rows[path] = rows_of(output.detach(), module).clone()

        return hook


def _relative(change: float, spreads: list[Spread]) -> float:
    found = relative(change, spreads)
    if not math.isinf(found):
        return found
    return undefined(
        "The relative change of outputs that do not vary is undefined (NaN)."
    )


def _agreeing(before: Tensor, after: Tensor) -> float:
    if before.ndim != 2 or before.shape[1] < 2:
        return math.nan
    return float((before.argmax(1) == after.argmax(1)).sum())
