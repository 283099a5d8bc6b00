"""An edited model beside the one that it is of: outputs, decisions, and layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError
from layerpeel.edits.data import Data
from layerpeel.edits.passes import Change, rows_of
from layerpeel.edits.recording import Kept, Recorder
from layerpeel.edits.rest import rest_of
from layerpeel.edits.spread import Spread, relative


@dataclass(frozen=True)
class Moved:
    """How far what a layer returns has moved.

    Attributes:
        energy: The sum of squared changes.
        spread: What it returned before.
    """

    energy: float
    spread: Spread

    @property
    def of_size(self) -> float:
        """The root mean square change, relative to what was returned before."""
        if not self.spread.length:
            return math.inf if self.energy else 0.0
        return math.sqrt(self.energy / self.spread.length)


@dataclass(frozen=True)
class Comparison:
    """How far two models are apart, on some data.

    Attributes:
        change: The change of the outputs.
        moved: The change of what some layers return, by path.
        agreement: The share of rows on which the largest output is the same one;
            ``None`` where outputs are no rows of at least two.
    """

    change: Change
    moved: Mapping[str, Moved]
    agreement: float | None

    @property
    def finite(self) -> bool:
        """Whether all outputs of the second model are finite."""
        return math.isfinite(self.change.largest)

    @property
    def of_spread(self) -> float:
        """The change of all layers, relative to how far they varied about their means."""
        energy = sum(moved.energy for moved in self.moved.values())
        return relative(math.sqrt(energy), [m.spread for m in self.moved.values()])


def compare(
    before: nn.Module,
    after: nn.Module,
    data: Data,
    paths: Iterable[str] = (),
    *,
    kept: Sequence[Kept] = (),
    source: str | None = None,
    looking: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Comparison:
    """Run two models over the data, and compare outputs and some layers.

    Args:
        before: The first model.
        after: The second one.
        data: The data.
        paths: Layers that both models have.
        kept: What the first model did, if it was kept; it is run otherwise.
        source: A layer, of the second model at least, and of both if nothing was kept.
            It reads the same in both: of the second one only what comes after is run,
            if that is all that outputs depend on.
        looking: A context for the runs of the second model.

    Raises:
        NonFiniteError: If outputs of the first model are not finite.
    """
    paths = tuple(paths)
    sums = _Sums(after, paths)
    rest = None if source is None else rest_of(after, source, data.names)
    with ExitStack() as stack:
        first: Iterable[Kept] = kept
        if not kept:
            recorder = stack.enter_context(Recorder(before, paths, source))
            first = map(recorder.run, data)
        second = stack.enter_context(Recorder(after, paths))
        for old in first:
            # The first batch goes through all of it, to see that the rest does the same.
            with looking():
                whole = rest is None or sums.samples == 0
                new = second.run(old.batch) if whole else second.run(old.rest(), rest)
            if rest is not None and whole and len(kept) != 1:
                again = second.run(old.rest(), rest)
                same = torch.equal(new.output, again.output)
                # Layers that outputs do not depend on are not in the rest.
                rest = rest if same and again.returned.keys() >= set(paths) else None
            sums.add(old, new)
    return sums.result()


def unchanged(kept: Sequence[Kept]) -> Comparison:
    """Return the comparison of a model with a copy of it, from what was kept."""
    sums = _Sums(nn.Identity(), ())
    for old in kept:
        sums.add(old, old)
    return sums.result()


class _Sums:
    """Sums up what differs, batch by batch."""

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self._modules = {path: model.get_submodule(path) for path in paths}
        self._spreads = {path: Spread() for path in paths}
        self._energy = dict.fromkeys(paths, 0.0)
        self.samples = self._same = self._rows = 0
        self._largest = self._scale = 0.0
        self._decided = True

    def add(self, old: Kept, new: Kept) -> None:
        was, now = old.output.double(), new.output.double()
        self._largest = _larger(self._largest, now - was)
        self._scale = _larger(self._scale, was)
        self.samples += old.batch.size
        self._decided = self._decided and was.ndim == 2 and was.shape[1] > 1
        if self._decided:
            self._same += int((was.argmax(1) == now.argmax(1)).sum())
            self._rows += len(was)
        for path, module in self._modules.items():
            rows = rows_of(old.returned[path], module)
            self._spreads[path].add(rows)
            moved = rows_of(new.returned[path], module).double() - rows.double()
            self._energy[path] += float(moved.square().sum())

    def result(self) -> Comparison:
        if not math.isfinite(self._scale):
            raise NonFiniteError(
                "The outputs of the model must be finite; they are NaN or infinite on "
                "the data. Normalise the data, or look for overflow in its layers."
            )
        change = Change(self._largest, self._scale, self.samples)
        moved = {
            path: Moved(energy, self._spreads[path])
            for path, energy in self._energy.items()
        }
        return Comparison(
            change, moved, self._same / self._rows if self._decided else None
        )


def _larger(largest: float, values: Tensor) -> float:
    """Return the larger one of a number and a tensor's entries; NaN stays."""
    found = float(values.abs().max()) if values.numel() else 0.0
    return found if found > largest or math.isnan(found) else largest
