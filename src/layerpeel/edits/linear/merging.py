"""Merging layers into their readers, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from layerpeel._checks import EditError
from layerpeel.edits.comparison import Comparison, compare
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.graph.functions import is_dropout
from layerpeel.edits.linear.composition import composed
from layerpeel.edits.linear.folding import folded
from layerpeel.edits.linear.layer_linearity import Judged
from layerpeel.edits.linear.linearity import looked_at
from layerpeel.edits.linear.merge_proof import NEW_BIAS, NO_DROPOUT, Merge
from layerpeel.edits.linear.place import places_of
from layerpeel.edits.linear.regularity import is_regular
from layerpeel.edits.linear.replay import with_features
from layerpeel.edits.linear.rule import Rule, floor_of, not_exact
from layerpeel.edits.passes import check_outputs
from layerpeel.edits.recording import Kept


@dataclass(frozen=True, eq=False)
class _Trial:
    """A model with one layer merged."""

    model: nn.Module
    merge: Merge
    notes: tuple[str, ...]


class Merging:
    """Merges one layer after the other.

    Args:
        model: The model.
        data: The data.
        rule: Which layers are merged that are not exactly linear.
        layers: Paths of the layers to merge; all when omitted.

    Attributes:
        current: The model as it is now.
        merges: What was merged.
        kept: Why other layers were not.
        notes: Caveats of the merges.
        last: What the last merges changed, against the model before them.
        first: What the given model did, if that is not too much to keep.
    """

    def __init__(
        self, model: nn.Module, data: Data, rule: Rule, layers: Sequence[str] | None
    ) -> None:
        self.before = self.current = model
        self._data, self._rule = data, rule
        self.merges: list[Merge] = []
        self.kept: dict[str, str] = {}
        self.notes: list[str] = []
        self.last: Comparison | None = None
        # Ranges are enough for what is exact; of layers that are named the rest is told.
        self._whole = rule.approximate or layers is not None
        self._found: list[Judged] = []
        self._kept: tuple[Kept, ...] = ()
        self._look(layers)
        self.first = self._kept

    def merge_exactly(self) -> None:
        """Merge all layers that are exactly linear; what was seen of others stays true."""
        start, new = self.current, list[Merge]()
        for each in self._found:
            row = each.row
            trial: _Trial | str = row.blocked or ("" if row.exact else not_exact(row))
            trial = trial or self._tried(self.current, each)
            if isinstance(trial, str):
                self.kept[row.path] = trial
                continue
            self._take(trial)
            new.append(trial.merge)
        if not new:
            return
        into = {merge.path: merge.reader for merge in new}
        ends = [_end(merge.reader, into) for merge in new]
        # What the first of them read is the same in both: the rest of the model is run.
        places = [each.place for each in self._found]
        kept = with_features(start, self._kept, places, new[0].path)
        self.last = compare(
            start, self.current, self._data, dict.fromkeys(ends),
            kept=kept or self._kept, source=ends[0] if kept else None,
        )  # fmt: skip
        check_outputs(self.current, self.last.change)
        self.merges += [
            replace(merge, measured=self.last.moved[end].of_size)
            for merge, end in zip(new, ends, strict=True)
        ]
        self._found = [each for each in self._found if each.row.path in self.kept]
        if self._rule.approximate:
            self._look_again()

    def merge_approximately(self) -> None:
        """Merge the other layers that are linear enough, the smallest change first."""
        while self._merge_next():
            self._look_again()

    def _merge_next(self) -> bool:
        for each in sorted(self._found, key=_smallest_first):
            path, floor = each.row.path, floor_of(each.place)
            trial: _Trial | str = each.row.blocked or self._rule.refusal(
                each.row, floor
            )
            trial = trial or self._tried(self.current, each)
            if isinstance(trial, str):
                self.kept[path] = trial
                continue
            reader = trial.merge.reader
            found = compare(
                self.current, trial.model, self._data, [reader], kept=self._kept
            )
            change = found.moved[reader].of_size
            why = self._rule.excess(change, floor)
            if why or not found.finite:
                self.kept[path] = why or "outputs would not be finite"
                continue
            self._take(trial)
            self.last = found
            self.merges.append(replace(trial.merge, measured=change))
            self.kept.pop(path, None)
            return True
        return False

    def _look_again(self) -> None:
        """Look at what is left, which later layers see otherwise after a merge."""
        left = {each.row.path for each in self._found}
        left -= {merge.path for merge in self.merges}
        self._found = []
        if left:
            self._look(None)
            self._found = [each for each in self._found if each.row.path in left]

    def _look(self, layers: Sequence[str] | None) -> None:
        looked = looked_at(
            self.current, self._data, layers, False, whole=self._whole, keep=True
        )
        self._found, self._kept = looked.found, looked.kept

    def _take(self, trial: _Trial) -> None:
        self.current = trial.model
        self.notes += [note for note in trial.notes if note not in self.notes]

    def _tried(self, model: nn.Module, each: Judged) -> _Trial | str:
        """Return a model with a layer merged, or why that cannot be."""
        graph = Graph(model, "layers", self._data.names)
        place = next(p for p in places_of(graph)[0] if p.path == each.row.path)
        row, lines, reader = each.row, each.lines, place.reader
        dropout = any(_is_dropout(node, graph) for node in place.chain)
        try:
            between = folded(place, lines)
            module = composed(place, between)
            regular = row.exact and is_regular(place, between, lines, module)
            fresh = reader.module.bias is None and module.bias is not None
            edited = graph.removed(place.chain, reader, module)
        except EditError as error:
            return str(error)
        merge = Merge(
            path=row.path,
            reader=reader.path,
            activation=row.activation,
            exact=row.exact,
            regular=regular,
            predicted=0.0 if row.exact else row.residual,
            predicted_by="exact" if row.exact else row.residual_by,
            measured=math.nan,
            correlation=row.minimal_correlation,
            margin=row.least_margin,
            whole=bool(row.inside.all()),
        )
        notes = [NEW_BIAS] * fresh + [NO_DROPOUT] * dropout
        notes += graph.notes if isinstance(edited, fx.GraphModule) else ()
        return _Trial(edited, merge, tuple(notes))


def _end(path: str, into: dict[str, str]) -> str:
    """Return the layer that is left of a row of merges."""
    while path in into:
        path = into[path]
    return path


def _smallest_first(each: Judged) -> float:
    value = each.row.residual
    return math.inf if math.isnan(value) else value


def _is_dropout(node: fx.Node, graph: Graph) -> bool:
    if node.op != "call_module":
        return is_dropout(node)
    module = graph.model.get_submodule(str(node.target))
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
