"""What a merge changed: outputs, decisions, and what the layer that is left returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerpeel.edits.data import Data
from layerpeel.edits.passes import Change, hooked
from layerpeel.measurement.sources.forward import evaluating


@dataclass(frozen=True)
class Comparison:
    """How far two models are apart, on some data.

    Attributes:
        change: The change of the outputs.
        layers: The relative root mean square change of what some layers return.
        agreement: The share of samples on which the largest output is the same one;
            ``None`` where outputs are no rows of at least two.
    """

    change: Change
    layers: Mapping[str, float]
    agreement: float | None


def compare(
    before: nn.Module, after: nn.Module, data: Data, paths: Iterable[str]
) -> Comparison:
    """Run two models over the data, and compare outputs and some layers.

    Args:
        before: The first model.
        after: The second one.
        data: The data.
        paths: Layers that both models have.
    """
    sums = {path: [0.0, 0.0] for path in paths}
    largest, scale, samples, same, rows = 0.0, 0.0, 0, 0, 0
    decided = True
    kept: list[dict[str, Tensor]] = [{}, {}]
    with ExitStack() as stack:
        for model, into in zip((before, after), kept, strict=True):
            stack.enter_context(evaluating(model))
            for path in sums:
                module = model.get_submodule(path)
                stack.enter_context(hooked(module, _keeping(into, path)))
        stack.enter_context(torch.no_grad())
        for batch in data:
            # A copy: the second model may return its input, or work in place.
            old = batch.run(before).double().clone()
            new = batch.run(after).double()
            largest = max(largest, float((new - old).abs().max()))
            scale = max(scale, float(old.abs().max()))
            samples += batch.size
            for path, both in sums.items():
                both[0] += float((kept[1][path] - kept[0][path]).square().sum())
                both[1] += float(kept[0][path].square().sum())
            decided = decided and old.ndim == 2 and old.shape[1] > 1
            if decided:
                same += int((old.argmax(1) == new.argmax(1)).sum())
                rows += len(old)
    layers = {path: _relative(*both) for path, both in sums.items()}
    agreement = same / rows if decided and rows else None
    return Comparison(Change(largest, scale, samples), layers, agreement)


def _keeping(into: dict[str, Tensor], path: str) -> Callable[..., None]:
    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        into[path] = output.detach().double().clone()

    return hook


def _relative(change: float, size: float) -> float:
    if not size:
        return math.inf if change else 0.0
    return math.sqrt(change / size)
