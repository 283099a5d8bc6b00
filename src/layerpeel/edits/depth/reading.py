"""What a layer reads or returns on the data, and what the model makes of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError
from layerpeel.edits.data import Data
from layerpeel.edits.passes import EnoughSeen, Range, hooked, rows_of
from layerpeel.edits.recording import MOST_BYTES, Keeper, Kept
from layerpeel.measurement.sources.forward import evaluating


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer on the data.

    Attributes:
        range: The range of what it reads or returns.
        kept: All batches, if they were to be kept, and are small enough.
    """

    range: Range
    kept: tuple[Kept, ...] = ()


def reading(
    model: nn.Module,
    path: str,
    data: Data,
    *,
    output: bool,
    keep: bool,
    most: int = MOST_BYTES,
) -> Reading:
    """Run a model up to a layer, or as a whole where that is kept.

    Args:
        model: The model.
        path: The path of the layer.
        data: The data.
        output: Whether the range is that of the layer's output, not of its input.
        keep: Whether to keep what is read and returned.
        most: The most bytes to keep.

    Raises:
        NonFiniteError: If there are values that are not finite.
    """
    look = _Look(model, path, output=output)
    keeper = Keeper(most)
    with hooked(look.module, look.hook), evaluating(model), torch.no_grad():
        for batch in data:
            look.whole = keep and not keeper.full
            returned: Tensor | None = None
            with suppress(EnoughSeen):
                returned = batch.run(model)
            if returned is not None:
                keeper.add(Kept(batch, look.features, returned.clone()))
    return Reading(look.range, keeper.kept)


class _Look:
    """Looks at a layer as the model runs."""

    def __init__(self, model: nn.Module, path: str, *, output: bool) -> None:
        self.module, self.whole = model.get_submodule(path), False
        self._path, self._output = path, output
        self._range: Range | None = None
        self.features = torch.empty(0)

    def hook(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen = output if self._output else args[0]
        now = Range.of(rows_of(seen.detach(), self.module))
        self._range = now if self._range is None else self._range.merge(now)
        if not self.whole:
            raise EnoughSeen
        # A copy: what follows may work in place.
        self.features = args[0].detach().clone()

    @property
    def range(self) -> Range:
        assert self._range is not None
        if not bool(torch.cat([self._range.low, self._range.high]).isfinite().all()):
            raise NonFiniteError(
                f"Features must be finite; those at {self._path!r} are NaN or infinite on "
                "the data. Normalise the data, or look for overflow in the layers before."
            )
        return self._range
