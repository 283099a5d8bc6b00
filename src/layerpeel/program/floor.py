r"""Rare classes lifted to a common floor: the peeled program as a function of one number.

Rates for every class would be :math:`K` numbers to choose. Here they are one, the floor
:math:`f` up to which rare classes are lifted,

.. math::
    r_k = \max(1, f / n_k) , \qquad n_k r_k = \max(n_k, f) .

No class is lifted above a more frequent one, and all rates grow with the floor, from
one at the smallest count to balance at the largest. For two groups of classes,
:math:`f = w n_B` is exactly the minority drawn :math:`w` times as often.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from scipy.optimize import brentq

from layerpeel.program.energy import Energy
from layerpeel.program.multiplier import log_leads, log_multiplier
from layerpeel.program.problem import PeeledProblem

# The tolerance on the logarithm of a floor, and the gap of a solve: the angles of a
# solution are as accurate as the root of its gap.
LOG_FLOOR_TOL = 1e-7
_GAP_TOL = 1e-11


class Floored(NamedTuple):
    """What is predicted at one floor.

    Attributes:
        cosine: The mean cosine between the classifiers of the block; NaN where one
            vanishes.
        lead: The logarithm of the second rarest class's frequency over the collapse
            threshold. Collapse takes two classes: there is some where it is not above
            zero.
    """

    cosine: float
    lead: float


@dataclass(frozen=True, eq=False)
class FloorPath:
    """The peeled program along the floor, each floor solved once.

    Attributes:
        counts: The class counts, with length :math:`K`.
        energy: The energies, held fixed.
        block: The classes whose mean cosine is looked at.
    """

    counts: tuple[float, ...]
    energy: Energy
    block: tuple[int, ...]
    _solved: dict[float, Floored] = field(default_factory=dict, init=False, repr=False)

    @property
    def solves(self) -> int:
        """How many programs have been solved."""
        return len(self._solved)

    def at(self, floor: float) -> Floored:
        """Return what is predicted with rare classes lifted to a floor."""
        if floor not in self._solved:
            self._solved[floor] = self._solve(floor)
        return self._solved[floor]

    def _solve(self, floor: float) -> Floored:
        lifted = [max(count, floor) for count in self.counts]
        problem = PeeledProblem(lifted, energy=self.energy)
        program = problem.class_level()
        solution = problem.solve(_GAP_TOL)
        second = float(log_leads(program).sort().values[1])
        return Floored(
            solution.geometry.block_cosine(self.block),
            second - log_multiplier(program, solution),
        )

    def lifting_floor(self, log_tol: float = LOG_FLOOR_TOL) -> float:
        """Return the least floor that lifts the collapse; NaN where there is none.

        Collapse is lifted where at most one class is at or below the threshold.

        Args:
            log_tol: The tolerance on the logarithm of the floor.
        """
        if self.at(min(self.counts)).lead > 0:
            return math.nan
        return self._root(lambda floor: -self.at(floor).lead, log_tol)

    def separating_floor(self, target: float, log_tol: float = LOG_FLOOR_TOL) -> float:
        """Return the least floor that brings the cosine down to a target.

        Args:
            target: The cosine, at least the balanced one.
            log_tol: The tolerance on the logarithm of the floor.
        """

        def excess(floor: float) -> float:
            cosine = self.at(floor).cosine
            # Angles move more evenly with the floor than their cosines do.
            angle = 0.0 if math.isnan(cosine) else math.acos(cosine)
            return math.acos(target) - angle

        return self._root(excess, log_tol)

    def _root(self, excess: Callable[[float], float], log_tol: float) -> float:
        """Return the least floor where a falling function is at most zero."""
        lowest, highest = min(self.counts), max(self.counts)
        if excess(lowest) <= 0:
            return lowest
        if excess(highest) >= 0:
            return highest
        log_floor = brentq(
            lambda log_floor: excess(math.exp(log_floor)),
            math.log(lowest),
            math.log(highest),
            xtol=log_tol,
        )
        return math.exp(log_floor)
