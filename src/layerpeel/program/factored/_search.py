"""Descents of a program from many starts, and which of them count as equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from layerpeel._tolerances import SAME_OBJECTIVE
from layerpeel.program.factored._descent import Descent, descend
from layerpeel.program.factored._objective import FactorObjective
from layerpeel.program.factored._points import point_of_factors
from layerpeel.program.factored._starts import Starts
from layerpeel.program.factors import Factors


def descents(
    objective: FactorObjective,
    warm: Sequence[Factors],
    starts: int,
    seed: int,
    max_steps: int,
) -> Iterator[Descent]:
    """Yield the ends of all descents; the later half start near the best so far."""
    source = Starts(objective, seed)
    given = (point_of_factors(objective, factors) for factors in warm)
    ends: list[Descent] = []
    for point in (*given, *source.structured(), *source.sweep((starts + 1) // 2)):
        ends.append(descend(objective, objective.pack(point), max_steps))
        yield ends[-1]
    for index in range(starts // 2):
        best = lowest(ends)
        if best is None:
            return
        point = source.near(objective.unpack(best.x), index)
        ends.append(descend(objective, objective.pack(point), max_steps))
        yield ends[-1]


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
