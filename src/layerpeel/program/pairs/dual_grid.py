r"""The two-group optimum for a whole grid of ratios and budgets.

Newton's method of :mod:`layerpeel.program.pairs.dual_path`, for all budgets at once. It
walks along the ratios from the balanced solution on, so that the solutions of the last
two ratios start the next: three or four steps are enough. What does not converge is
solved one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy.typing import NDArray

from layerpeel._tolerances import EPS
from layerpeel.program.pairs.batch import TwoGroupBatch
from layerpeel.program.pairs.dual_conditions import (
    State,
    newton_step,
    nuclear_norm,
    singular_value,
    state_at,
    violation,
)
from layerpeel.program.pairs.dual_path import (
    CONVERGED,
    LARGEST_FALL,
    LARGEST_TURN,
    MOST_STEPS,
    SATISFIED,
    balanced_x,
    place,
    solve_two_groups,
)
from layerpeel.program.pairs.thresholds import log_vanishing_threshold
from layerpeel.program.pairs.two_groups import TwoGroups

Row = Float64[np.ndarray, " m"]
Scalars = Float64[np.ndarray, "5 m"]


def solve_two_group_grid(
    majority: int,
    minority: int,
    log_ratios: Sequence[float],
    budgets: Sequence[float],
) -> TwoGroupBatch:
    """Return the optimal logits for every pair of a ratio and a budget.

    Args:
        majority: The number of majority classes.
        minority: The number of minority classes.
        log_ratios: Logarithms of the ratios of counts, at least zero, increasing, with
            length ``n``.
        budgets: The nuclear-norm budgets, with length ``m``.

    Returns:
        The scalars, with shape ``(m, n)``.
    """
    walk = _Walk.of(majority, minority, np.asarray(budgets, dtype=np.float64))
    with np.errstate(all="ignore"):
        columns = np.stack([walk.to(float(r)) for r in log_ratios], axis=-1)
    ratios, taus = np.meshgrid(np.asarray(log_ratios, dtype=np.float64), walk.tau)
    return TwoGroupBatch(majority, minority, ratios, taus, *columns)


@dataclass
class _Walk:
    """Where the solutions of all budgets are, at the last two ratios.

    Attributes:
        sizes: The numbers of majority and minority classes.
        tau: The budgets.
        vanishing: Logarithms of the vanishing thresholds.
        last: The ratio, the multiplier and the angle of the last solutions.
        before: The same of those before.
    """

    sizes: tuple[int, int]
    tau: Row
    vanishing: Row
    last: tuple[float, Row, Row]
    before: tuple[float, Row, Row]

    @classmethod
    def of(cls, majority: int, minority: int, tau: Row) -> _Walk:
        x = np.array([balanced_x(majority + minority, float(t)) for t in tau])
        ends = [log_vanishing_threshold(majority, minority, float(t)) for t in tau]
        start = (0.0, x, np.zeros_like(x))
        return cls((majority, minority), tau, np.array(ends), start, start)

    def to(self, log_ratio: float) -> Scalars:
        """Walk on to a ratio, and return the scalars there."""
        x, t = self._guess(log_ratio)
        scalars = np.zeros((5, len(self.tau)))
        scalars[0], scalars[3] = self.tau / max(self.sizes[0] - 1, 1), 1.0
        live = np.flatnonzero(log_ratio < self.vanishing)
        found = self._solve(log_ratio, live, x[live], t[live])
        x[live], t[live], scalars[:, live] = found
        self.before, self.last = self.last, (log_ratio, x, t)
        return scalars

    def _guess(self, log_ratio: float) -> tuple[Row, Row]:
        """Extrapolate from the last two solutions."""
        (then, x0, t0), (now, x, t) = self.before, self.last
        share = (log_ratio - now) / (now - then) if now > then else 0.0
        guess = x + share * (x - x0)
        # A minority that was apart is guessed to be so still: Newton's method finds it
        # collapsed more easily than apart.
        spread = np.maximum(x - now, 0.0)
        least = np.where(spread > 0, 0.5 * spread + log_ratio, 0.5 * x)
        return np.maximum(guess, least), t + share * (t - t0)

    def _solve(
        self, log_ratio: float, live: Int[np.ndarray, " m"], x: Row, t: Row
    ) -> tuple[Row, Row, Scalars]:
        newton = _Newton(self.sizes, log_ratio, self.tau[live])
        x, t, scalars, converged = newton.solve(x, t)
        for i in np.flatnonzero(~converged):
            program = TwoGroups(*self.sizes, log_ratio, float(newton.tau[i]))
            logits = solve_two_groups(program)
            (x[i], t[i]), scalars[:, i] = place(logits), logits.scalars
        return x, t, scalars


@dataclass(frozen=True, eq=False)
class _Newton:
    """Newton's method for one ratio and several budgets.

    Attributes:
        sizes: The numbers of majority and minority classes.
        log_ratio: The logarithm of the ratio.
        tau: The budgets.
    """

    sizes: tuple[int, int]
    log_ratio: float
    tau: Row

    def solve(
        self, x_A: Row, t: Row
    ) -> tuple[Row, Row, Scalars, Bool[np.ndarray, " m"]]:
        """Return multipliers, angles, scalars, and which of them are solutions."""
        x_B = x_A - self.log_ratio
        converged = np.zeros(len(t), dtype=bool)
        for _ in range(MOST_STEPS):
            if converged.all():
                break
            state = state_at(np, self.sizes, x_A, x_B, t)
            dx, dt = newton_step(np, self.sizes, state, t, self.tau)
            converged = self._is_small(dx, dt, x_A, x_B)
            x_A, x_B = self._moved(x_A, x_B, dx)
            t = t + np.clip(dt, -LARGEST_TURN, LARGEST_TURN)
        state = state_at(np, self.sizes, x_A, x_B, t)
        missed = violation(np, self.sizes, state, t, self.tau)
        scalars = self._scalars(state)
        converged &= (missed <= SATISFIED) & (scalars[2] > 0)
        return x_A, t, scalars, converged

    def _is_small(self, dx: Row, dt: Row, x_A: Row, x_B: Row) -> Bool[np.ndarray, " m"]:
        small = np.maximum(CONVERGED * np.where(x_B > 0, x_B, x_A), EPS * x_A)
        turned = abs(dt) <= CONVERGED * np.minimum(1.0, x_A)
        return np.asarray((abs(dx) <= small) & turned)

    def _moved(self, x_A: Row, x_B: Row, dx: Row) -> tuple[Row, Row]:
        """Move both; the smaller, where it is positive, keeps its digits."""
        spread = x_B + dx > 0
        fallen = np.maximum(x_A + dx, x_A / LARGEST_FALL)
        return (
            np.where(spread, x_B + dx + self.log_ratio, fallen),
            np.where(spread, x_B + dx, fallen - self.log_ratio),
        )

    def _scalars(self, state: State[NDArray[np.float64]]) -> Scalars:
        """Return alpha, beta, rho, cos and sin; the budget is spent to the last digit."""
        scale = self.tau / nuclear_norm(self.sizes, state)
        rho = singular_value(self.sizes, state)
        logits = np.stack([state.A.spread, state.B.spread, rho]) * scale
        return np.concatenate([logits, [state.cos, state.sin]])
