"""A layer narrowed down to the neurons that were kept: said in words, and in a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerpeel._checks import listed
from layerpeel._json import plain
from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones import Kept, MeasuredChange
from layerpeel.measurement.files.container import Container
from layerpeel.reports.page import Section
from layerpeel.reports.table import Cell, Table

_KIND = "Kept"


@dataclass(frozen=True, eq=False)
class KeptLayer:
    """The neurons of a layer that were kept, with what that changed.

    Attributes:
        profile: The profile of the layer.
        kept: The neurons, and the map that reads them.
        select: How they were selected.
        asked: The tolerance that was asked for; ``None`` where the width was given.
        reader: What to call the linear map that reads the layer; its path in the model
            where this is ``None``.
        causes: Why numbers are undefined, as sentences.
    """

    profile: CloneProfile
    kept: Kept
    select: str
    asked: float | None = None
    reader: str | None = None
    causes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but weights, ready for JSON."""
        return {**self._facts(), "neurons": self.kept.neurons.tolist()}

    def write(self, path: Path) -> None:
        """Write neurons, weights and what changed to a file, whole or not at all.

        Args:
            path: The file, ending in ``.safetensors``. It has the tensors ``neurons``,
                with shape :math:`(w,)`, ``weight``, with shape :math:`(C, w)`, and
                ``bias``, with shape :math:`(C,)`; and all else as JSON under
                ``settings`` in its metadata.

        Raises:
            OSError: If the file cannot be written.
        """
        kept = self.kept
        tensors = {"neurons": kept.neurons, "weight": kept.weight, "bias": kept.bias}
        Container(_KIND, self._facts(), tensors).write(path)

    def section(self) -> Section:
        """Return what is said of it, as a part of a page."""
        return Section("Neurons kept", self._text(), tables=(self._table(),))

    def _facts(self) -> dict[str, Any]:
        profile, kept, consumer = self.profile, self.kept, self.profile.consumer
        facts: dict[str, Any] = plain(
            {
                "layer": profile.layer,
                "layer_width": profile.width,
                "width": kept.width,
                "rank": kept.rank,
                "tolerance": kept.tolerance,
                "select": self.select,
                "consumer": consumer and (self.reader or consumer.name),
                "change": asdict(kept.change),
                "residual": kept.residual,
                "measured": kept.measured and asdict(kept.measured),
                "held_out": kept.held_out and asdict(kept.held_out),
            }
        )
        return facts

    def _text(self) -> str:
        neurons = listed(self.kept.neurons.tolist(), 16)
        said = [self._selected(), f"They are {neurons}.", self._folded()]
        return " ".join([*said, *self.causes])

    def _selected(self) -> str:
        kept, whole = self.kept, self.profile.width
        how = {"pivoted": "by pivots", "random": "at random"}[self.select]
        said = f"{kept.width} of {whole} neurons are kept, selected {how}"
        if self.asked is not None:
            said += (
                f": as few as change the output by at most {kept.tolerance:.3g} of its "
                "spread on the training set"
            )
            if kept.tolerance > self.asked:
                said += ", below which rounding hides a change"
        if kept.rank < kept.width:
            said += (
                f"; all but {kept.rank} repeat what others hold, and are not read "
                "(weight 0)"
            )
        return f"{said}."

    def _folded(self) -> str:
        consumer = self.profile.consumer
        if consumer is None:
            return (
                "No linear map alone reads the layer: the new weight and bias give back "
                "all of its neurons."
            )
        return (
            "The linear reconstruction of the others is folded into the weight and bias "
            f"of {self.reader or f'`{consumer.name}`'}."
        )

    def _table(self) -> Table:
        """Return what changed on each set of data."""
        kept = self.kept
        changes = {"training": kept.measured, "held out": kept.held_out}
        known = {name: one for name, one in changes.items() if one is not None}
        decided = any(not math.isnan(one.error_before) for one in known.values())
        columns = ["data", "samples", "change", "largest change"]
        if decided:
            columns += ["error before", "error after", "decided otherwise"]
        rows = [_row(name, one, decided=decided) for name, one in known.items()]
        if not rows:  # there is no output: what is known of the layer itself
            count = self.profile.num_samples
            rows = [("training", count, kept.change.relative, kept.change.largest)]
        return Table(
            "What that changes", tuple(columns), tuple(rows), self._note(bool(known))
        )

    def _note(self, measured: bool) -> str:
        if measured:
            return (
                "The change of the output is the root mean square over samples, relative "
                "to its spread; the largest change is that of one sample, not relative."
            )
        return (
            "The change of the layer when it is given back is the root mean square over "
            "samples, relative to its spread; no sample changes by more than the largest."
        )


def _row(name: str, one: MeasuredChange, *, decided: bool) -> tuple[Cell, ...]:
    row: tuple[Cell, ...] = (name, one.count, one.relative, one.largest)
    if not decided:
        return row
    return (*row, one.error_before, one.error_after, one.decisions)
