"""Descents of a program from many starts, and which of them count as equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from layerpeel._tolerances import SAME_OBJECTIVE
from layerpeel.program.factored._descent import Descent, descend
from layerpeel.program.factored._objective import FactorObjective, Point
from layerpeel.program.factored._points import (
    point_of_factors,
    point_of_logits,
    rank_of,
    widened,
)
from layerpeel.program.factored._starts import Starts
from layerpeel.program.factors import Factors

# This many descents that agree are no coincidence: a frame, blocks and blocks a little
# moved may share one local optimum.
_AGREED = 5

# The starts that may follow while fewer agree, in units of those asked for.
_MOST_MORE = 2

# For more classes than this there are fewer of them.
_SMALL = 20


def descents(
    objective: FactorObjective,
    warm: Sequence[Factors],
    starts: int,
    seed: int,
    max_steps: int,
) -> Iterator[Descent]:
    """Yield the ends of all descents; the later half start near the best so far.

    Several layers have many local optima: while few descents agree on the best one, more
    starts follow: up to ``_MOST_MORE`` times as many for a few classes.
    """
    source = Starts(objective, seed)
    given = (point_of_factors(objective, factors) for factors in warm)
    ends: list[Descent] = []
    for point in (*given, *source.structured(), *source.sweep((starts + 1) // 2)):
        ends.append(_descended(objective, point, max_steps))
        yield ends[-1]
    more = _more_starts(objective, starts)
    for index in range(starts // 2 + more):
        best = lowest(ends)
        enough = index >= starts // 2 and best is not None
        if best is None or (enough and agreeing(objective, ends, best) >= _AGREED):
            return
        # Another direction dropped from the best point would only lead back to it.
        near = source.near(objective.unpack(best.x), 2 * index + 1 if enough else index)
        point = source.blocks(index) if enough and index % 2 else near
        ends.append(_descended(objective, point, max_steps))
        yield ends[-1]


def _more_starts(objective: FactorObjective, starts: int) -> int:
    """Return how many starts may follow: fewer where each of them is expensive."""
    if objective.program.regulariser.depth == 1:
        return 0
    share = min(1.0, _SMALL / objective.program.num_classes) ** 2
    return int(_MOST_MORE * starts * share)


def _descended(objective: FactorObjective, point: Point, max_steps: int) -> Descent:
    """Descend from a point, in no more dimensions than it has.

    With several layers a direction that is zero stays zero: the factors may as well do
    without it, which is cheaper.
    """
    program = objective.program
    if program.regulariser.depth == 1 or program.nonnegative:
        return descend(objective, objective.pack(point), max_steps)
    narrow = replace(objective, width=max(rank_of(objective, point), 1))
    start = point_of_logits(narrow, objective.logits(point), point.bias)
    end = descend(narrow, narrow.pack(start), max_steps)
    return replace(end, x=objective.pack(widened(objective, narrow.unpack(end.x))))


def lowest(ends: Sequence[Descent]) -> Descent | None:
    """Return the lowest end, the first of equals, or ``None`` if none is finite."""
    finite = (end for end in ends if math.isfinite(end.value))
    return min(finite, key=lambda end: end.value, default=None)


def improves(objective: FactorObjective, end: Descent, ends: Sequence[Descent]) -> bool:
    """Whether a descent ended below all others, by more than equals differ."""
    best = lowest(ends)
    if best is None:
        return math.isfinite(end.value)
    return end.value < best.value - SAME_OBJECTIVE * objective.scale(best.value)


def agreeing(objective: FactorObjective, ends: Sequence[Descent], best: Descent) -> int:
    """Return how many descents reached the best value."""
    reach = best.value + SAME_OBJECTIVE * objective.scale(best.value)
    return sum(end.value <= reach for end in ends)
