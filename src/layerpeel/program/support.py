r"""What is proved for which program: the support matrix, read off the routes.

The matrix is enumerated from small problems, one for every combination of loss, features,
number of layers, norms that are held small, width, bias and kind of counts. Nothing in it
is written by hand, and a test solves its cells.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from layerpeel.program.class_level import ClassLevel, SquaredLoss
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy
from layerpeel.program.mse import MSE
from layerpeel.program.problem import PeeledProblem
from layerpeel.program.routes import Proof, choose_route

Support = Proof | Literal["raises"]

LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {"loss": CrossEntropy()},
    "cross-entropy with label smoothing": {"loss": CrossEntropy(smoothing=0.1)},
    "cross-entropy with margins": {"loss": CrossEntropy(margin=(1, 2, 2))},
    "cross-entropy with class weights": {
        "loss": CrossEntropy(),
        "class_weights": (1, 2, 2),
    },
    "cross-entropy with scales or offsets": {
        "loss": CrossEntropy(scale=(2, 1, 1), offset=(1, 0, 0)),
    },
    "squared error": {"loss": MSE()},
    "squared error with class weights": {"loss": MSE(), "class_weights": (1, 2, 2)},
}
FEATURES = ("free", "nonnegative")
LAYERS = {"1": 1, "2 or more": 2}
HOLDS = ("energy per class", "energy per sample", "decay per sample", "decay per class")
WIDTHS = {"K or more": 3, "K - 1": 2, "less": 1}
BIASES: dict[str, Any] = {"no bias": None, "free bias": "free", "ridge bias": 0.05}
COUNTS = {"equal": (40, 40, 40), "two groups": (40, 10, 10), "distinct": (40, 20, 10)}

# Energies that bind: squared error does not spend larger ones.
_ENERGY = 0.3
_DECAY = 0.01


def guarantee(program: ClassLevel) -> Proof:
    """Return what the solution of a program is proved to be, whatever its numbers are.

    A program may turn out better: a width below the largest rank may still be enough for
    the solution at hand, and the best found may meet a lower bound.
    """
    proof = choose_route(program).proof
    if program.width is None or program.width >= largest_rank(program):
        return proof
    return proof if _holds_in_any_width(program, proof) else "best found"


def _holds_in_any_width(program: ClassLevel, proof: Proof) -> bool:
    """Whether a solution is proved in fewer dimensions than it would take.

    The convex program is only a bound there. The formulas of squared error keep the
    directions of largest gain; none tells how directions of different worth, as a ridge
    makes them, share a budget.
    """
    uneven = bool(program.ridge) and program.regulariser.budget is not None
    squared = isinstance(program.loss, SquaredLoss)
    return squared and proof == "closed form" and not uneven


def largest_rank(program: ClassLevel) -> int:
    """Return the largest rank that the logits of a solution can have.

    One less than the number of classes where the loss, or a free bias, leaves one
    direction without worth. Nonnegative features need a dimension for each class.
    """
    squared = isinstance(program.loss, SquaredLoss) and program.ridge != 0
    return program.num_classes - (not squared and not program.nonnegative)


@dataclass(frozen=True)
class Cell:
    """One combination of the support matrix; the values are keys of the tables above.

    Attributes:
        loss: One of ``LOSSES``.
        features: One of ``FEATURES``.
        layers: One of ``LAYERS``.
        holds: One of ``HOLDS``.
        width: One of ``WIDTHS``.
        bias: One of ``BIASES``.
        counts: One of ``COUNTS``.
    """

    loss: str
    features: str
    layers: str
    holds: str
    width: str
    bias: str
    counts: str

    def problem(self) -> PeeledProblem:
        """Return a small problem of this kind.

        Raises:
            ValueError: If there is none.
        """
        return PeeledProblem(
            COUNTS[self.counts],
            **LOSSES[self.loss],
            **_held(self.holds, LAYERS[self.layers]),
            bias=BIASES[self.bias],
            features="nonnegative" if self.features == "nonnegative" else "free",
            width=WIDTHS[self.width],
        )

    @property
    def support(self) -> Support:
        """What is proved of its solution; ``"raises"`` where there is no such problem."""
        return _support(self)


def support_matrix() -> tuple[Cell, ...]:
    """Return all cells."""
    axes = (LOSSES, FEATURES, LAYERS, HOLDS, WIDTHS, BIASES, COUNTS)
    return tuple(Cell(*values) for values in itertools.product(*axes))


def support_tables() -> str:
    """Return the support matrix as Markdown, with equal losses and equal rows merged.

    Where the kind of counts matters, a cell has what holds for classes that are alike
    before the stroke, and what holds for others behind it.
    """
    tables: dict[str, list[str]] = {}
    for loss in LOSSES:
        tables.setdefault(_table(loss), []).append(loss)
    parts = [f"### {_title(losses)}\n\n{table}" for table, losses in tables.items()]
    return "\n\n".join(parts)


@functools.cache
def _support(cell: Cell) -> Support:
    try:
        problem = cell.problem()
    except ValueError:
        return "raises"
    return guarantee(problem.class_level())


def _held(holds: str, layers: int) -> dict[str, Any]:
    kind, per = holds.split(" per ")
    scope: Literal["sample", "class"] = "sample" if per == "sample" else "class"
    if kind == "decay":
        decay = Decay(*[_DECAY] * layers, features=_DECAY, per=scope)
        return {"weight_decay": decay}
    if layers > 1:
        return {"energy": (_ENERGY,) * (layers + 1)}
    return {"energy": Energy(_ENERGY, _ENERGY, scope)}


# Merging rows that say the same

Key = tuple[tuple[str, ...], tuple[str, ...]]  # what holds the norms small, and cells


@dataclass(frozen=True)
class _Row:
    features: str
    layers: str
    holds: tuple[str, ...]
    widths: tuple[str, ...]
    cells: tuple[str, ...]

    def markdown(self) -> str:
        widths = "any" if len(self.widths) == len(WIDTHS) else " or ".join(self.widths)
        texts = (self.features, self.layers, self._held(), widths, *self.cells)
        return f"| {' | '.join(texts)} |"

    def _held(self) -> str:
        """Return the norms held small, without a word that makes no difference."""
        if len(self.holds) == len(HOLDS) - 1:
            (other,) = set(HOLDS) - set(self.holds)
            return f"any but {other}"
        kinds, scopes = zip(*(hold.split(" per ") for hold in self.holds), strict=True)
        kind = kinds[0] if len(set(kinds)) == 1 else "any"
        if len(set(scopes)) == 1:
            return f"{kind} per {scopes[0]}"
        full = len(set(kinds)) * len(set(scopes)) == len(self.holds)
        return kind if full else " or ".join(self.holds)


def _table(loss: str) -> str:
    header = ("features", "layers", "held small by", "width", *BIASES)
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [row.markdown() for row in _rows(loss)]
    return "\n".join(lines)


def _rows(loss: str) -> Iterator[_Row]:
    """Yield the rows of a table, those of equal cells in one."""
    for features, layers in itertools.product(FEATURES, LAYERS):
        merged: dict[Key, list[str]] = {}
        for width in WIDTHS:
            for key in _by_cells(loss, features, layers, width):
                merged.setdefault(key, []).append(width)
        for (holds, cells), widths in merged.items():
            yield _Row(features, layers, holds, tuple(widths), cells)


def _by_cells(loss: str, features: str, layers: str, width: str) -> list[Key]:
    """Return the different rows of cells, each with what it holds for."""
    by_cells: dict[tuple[str, ...], list[str]] = {}
    for holds in HOLDS:
        kind = (loss, features, layers, holds, width)
        cells = tuple(_text(*kind, bias) for bias in BIASES)
        by_cells.setdefault(cells, []).append(holds)
    return [(tuple(holds), cells) for cells, holds in by_cells.items()]


def _text(
    loss: str, features: str, layers: str, holds: str, width: str, bias: str
) -> str:
    """Return what holds for classes that are alike, and for others if that differs."""
    kind = (loss, features, layers, holds, width, bias)
    return " / ".join(dict.fromkeys(Cell(*kind, counts).support for counts in COUNTS))


def _title(losses: Sequence[str]) -> str:
    first, *rest = losses
    return "; ".join([first[0].upper() + first[1:], *rest])
