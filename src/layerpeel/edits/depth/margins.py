"""How far inserted pre-activations stay from the ends of their affine pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.passes import Range, rows_of


class Margins:
    """Looks at the inserted layers of a model as it runs.

    Args:
        model: The lifted model.
        lifts: Its inserted layers.
    """

    def __init__(self, model: nn.Module, lifts: Sequence[Lift]) -> None:
        self._model, self._lifts = model, lifts
        self._seen: dict[str, Range] = {}

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at what the model does within the context."""
        handles = [
            self._model.get_submodule(lift.path).register_forward_hook(
                self._hook(lift.path)
            )
            for lift in self._lifts
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def margin(self) -> float:
        """The least distance of a pre-activation to an end of its piece."""
        return min(float(self._distance(lift).min()) for lift in self._lifts)

    @property
    def radius(self) -> float:
        """The same over the length of its incoming weights."""
        return min(map(self._radius, self._lifts))

    def _radius(self, lift: Lift) -> float:
        module: Any = self._model.get_submodule(lift.path)
        lengths = module.weight.detach().double().flatten(1).norm(dim=1).cpu()
        if getattr(module, "padding_mode", "zeros") != "zeros":
            # One feature may be read by several taps.
            lengths *= math.sqrt(math.prod(module.kernel_size))
        # Neurons without incoming weights stay where they are.
        return float((self._distance(lift) / lengths).nan_to_num(float("inf")).min())

    def _distance(self, lift: Lift) -> Float64[Tensor, " m"]:
        seen = self._seen[lift.path]
        return torch.minimum(seen.low - lift.piece.lower, lift.piece.upper - seen.high)

    def _hook(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            now = Range.of(rows_of(output.detach(), module))
            seen = self._seen.get(path)
            self._seen[path] = now if seen is None else seen.merge(now)

        return hook
