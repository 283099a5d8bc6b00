r"""The two-group optimum: Newton's method, and a bracketed search where that fails.

Newton's method takes about five steps, since both conditions of
:mod:`layerpeel.program.pairs.dual_conditions` are nearly linear in logarithms of
probabilities. What it finds is optimal if the conditions hold; if not, two nested root
searches cannot fail. At a fixed multiplier both groups mean the same :math:`\rho` at
exactly one angle, since one side grows with it and the other falls; if :math:`\rho` is
negative there, the minority would vanish. And the norm falls with the multiplier,
because the optimal value is convex in the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

from layerpeel._tolerances import EPS
from layerpeel.program.pairs.dual_conditions import (
    cos_sin,
    disagreement,
    newton_step,
    nuclear_norm,
    singular_value,
    state_at,
    turns,
    violation,
)
from layerpeel.program.pairs.log_mix import log_mix
from layerpeel.program.pairs.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)
from layerpeel.program.pairs.two_groups import TwoGroupLogits, TwoGroups

MOST_STEPS = 15
"""Steps after which Newton's method gives up."""

CONVERGED = 1e-8
"""A step this small, relatively, leaves an error of its square."""

SATISFIED = 1e-6
"""Conditions missed by less, relatively, hold: one more step leaves nothing of it."""

# Steps of the angle, and shrinkages of the multiplier's logarithm, are at most these.
LARGEST_TURN, LARGEST_FALL = 4.0, 4.0

# Root searches stay where probabilities are above this share of those at zero logits.
# The singular value between the groups is negative there, hence never a solution.
_EDGE = 1e-6
# Roots below this are zero: float64 has no digits left there.
_LEAST = 1e-300


def solve_two_groups(program: TwoGroups) -> TwoGroupLogits:
    """Return the optimal logits for two groups of equally frequent classes.

    The cost does not depend on the number of classes.

    Args:
        program: The group sizes, the ratio of their counts and the budget.

    Returns:
        The scalars, with nuclear norm equal to the budget up to rounding.
    """
    K_A, K_B, tau = program.majority, program.minority, program.tau
    if program.log_ratio >= log_vanishing_threshold(K_A, K_B, tau):
        return TwoGroupLogits(program, tau / (K_A - 1), 0.0, 0.0, 1.0, 0.0)
    path = _Path(program)
    return path.newton() or path.search()


def balanced_x(num_classes: int, tau: float) -> float:
    r"""Return :math:`x` for balanced classes."""
    return log_mix(math, tau / (num_classes - 1), 1 / num_classes)


class _Path:
    """The stationary logits of a program, and how often they were evaluated."""

    def __init__(self, program: TwoGroups) -> None:
        self.program = program
        self.sizes = program.majority, program.minority
        self.evaluations = 0
        self._last = 0.0

    def newton(self) -> TwoGroupLogits | None:
        """Return the root that Newton's method finds from one of two starts, if any."""
        x, log_ratio = self._balanced, self.program.log_ratio
        # Of the starts tried on thousands of programs, the first fails least, one time
        # in ten; where it does the minority has mostly collapsed, as in the second.
        starts = [(0.5 * x + log_ratio, 0.5 * x, 0.0)]
        if x < log_ratio:
            starts.append((x, x - log_ratio, self._angle_of(log_ratio - x)))
        for start in starts:
            try:
                logits = self._newton_from(*start)
            except (ArithmeticError, ValueError):  # it left the domain of a logarithm
                continue
            if logits is not None:
                return logits
        return None

    @property
    def _balanced(self) -> float:
        return balanced_x(self.program.num_classes, self.program.tau)

    def _newton_from(self, x_A: float, x_B: float, t: float) -> TwoGroupLogits | None:
        log_ratio = self.program.log_ratio
        for _ in range(MOST_STEPS):
            self.evaluations += 1
            state = state_at(math, self.sizes, x_A, x_B, t)
            dx, dt = newton_step(math, self.sizes, state, t, self.program.tau)
            small = max(CONVERGED * (x_B if x_B > 0 else x_A), EPS * x_A)
            converged = abs(dx) <= small and abs(dt) <= CONVERGED * min(1.0, x_A)
            # The smaller of the two, where it is positive, has to keep its digits.
            x_B = x_B + dx
            x_A = x_B + log_ratio if x_B > 0 else max(x_A + dx, x_A / LARGEST_FALL)
            x_B = x_B if x_B > 0 else x_A - log_ratio
            t += max(-LARGEST_TURN, min(dt, LARGEST_TURN))
            if converged:
                return self._solution(x_A, x_B, t)
        return None

    def _solution(self, x_A: float, x_B: float, t: float) -> TwoGroupLogits | None:
        """Return the logits if they are a solution: a kink can look like one."""
        state = state_at(math, self.sizes, x_A, x_B, t)
        missed = violation(math, self.sizes, state, t, self.program.tau)
        if missed > SATISFIED or singular_value(self.sizes, state) <= 0:
            return None
        return self._spent(x_A, x_B, t)

    def search(self) -> TwoGroupLogits:
        """Return the root by nested, bracketed searches."""
        K_A, K_B, tau = *self.sizes, self.program.tau
        log_ratio = self.program.log_ratio
        if K_A == 1 and (K_B == 1 or log_ratio >= log_collapse_threshold(1, K_B, tau)):
            return self._angle_alone()
        # The smaller of x_A and x_B, where it is positive, has to keep its digits.
        spread = K_B > 1 and self._excess(log_ratio, 0.0) < 0

        def places(log_x: float) -> tuple[float, float]:
            x = math.exp(log_x)
            return (x + log_ratio, x) if spread else (x, x - log_ratio)

        root = _increasing_root(
            lambda log_x: self._excess(*places(log_x)),
            math.log(self._balanced),
            step=1.0,
            scale=1.0,
        )
        x_A, x_B = places(root)
        return self._spent(x_A, x_B, self._angle(x_A, x_B))

    def _excess(self, x_A: float, x_B: float) -> float:
        """Return by how much the norm exceeds the budget."""
        state = state_at(math, self.sizes, x_A, x_B, self._angle(x_A, x_B))
        # rho < 0: the minority would vanish at this multiplier. It does not at the
        # optimum, so this multiplier is too large.
        if singular_value(self.sizes, state) < 0:
            return -1.0
        return nuclear_norm(self.sizes, state) / self.program.tau - 1

    def _angle(self, x_A: float, x_B: float) -> float:
        """Return the angle at which both groups mean the same."""
        # That of the last multiplier is a good guess for the next.
        highest = self._highest(x_B)
        scale = min(1.0, x_A)
        self._last = _increasing_root(
            lambda t: self._disagreement(x_A, x_B, t),
            min(self._last, highest),
            step=0.25 * scale,
            scale=scale,
            highest=highest,
        )
        return self._last

    def _disagreement(self, x_A: float, x_B: float, t: float) -> float:
        self.evaluations += 1
        return disagreement(math, state_at(math, self.sizes, x_A, x_B, t), t)

    def _highest(self, x_B: float) -> float:
        """Return the largest angle at which the minority's probabilities are positive."""
        rest = min(x_B, 0.0) if self.program.minority > 1 else x_B
        share = self.program.minority / self.program.num_classes
        return self._angle_of(math.log1p((_EDGE - 1) * share) - rest)

    def _angle_of(self, turn: float) -> float:
        """Return the angle of a turn of the minority; infinite below the least turn."""
        K_A, K_B, K = *self.sizes, self.program.num_classes
        if 2 * turn <= math.log(K_A / K):
            return math.inf
        return -0.5 * log_mix(math, 2 * turn, K / K_B)

    def _angle_alone(self) -> TwoGroupLogits:
        r"""Return the logits when nothing is left but :math:`\rho = \tau` and the angle.

        So it is for one majority class and a single or collapsed minority. With
        :math:`x_g = \lambda(\tau e^{-\omega_g} / m, m / K) - \omega_g` and
        :math:`\omega_A - \omega_B = t`, the condition :math:`x_A = x_B + \log R` is one
        number that falls with :math:`t` at a slope of at least one.
        """
        tau, K = self.program.tau, self.program.num_classes

        def condition(t: float) -> float:
            self.evaluations += 1
            both = zip(self.sizes, turns(math, self.sizes, t), strict=True)
            A, B = (log_mix(math, tau * math.exp(-w) / m, m / K) for m, w in both)
            return t + self.program.log_ratio - (A - B)

        step, scale = abs(condition(0.0)), min(1.0, tau)
        t = _increasing_root(condition, 0.0, step=step, scale=scale)
        cos, sin = cos_sin(math, self.sizes, *turns(math, self.sizes, t))
        return TwoGroupLogits(self.program, 0.0, 0.0, tau, cos, sin, self.evaluations)

    def _spent(self, x_A: float, x_B: float, t: float) -> TwoGroupLogits:
        """Return the logits, with the budget spent to the last digit."""
        state = state_at(math, self.sizes, x_A, x_B, t)
        rho = singular_value(self.sizes, state)
        scalars = state.A.spread, state.B.spread, rho, state.cos, state.sin
        logits = TwoGroupLogits(self.program, *scalars)
        return logits.scaled_to(self.program.tau, self.evaluations)


def place(logits: TwoGroupLogits) -> tuple[float, float]:
    """Return where on the path logits lie: x of the majority, and the angle."""
    K_A, K_B = sizes = logits.program.majority, logits.program.minority
    t = math.log(logits.sin / logits.cos) - 0.5 * math.log(K_A / K_B)
    turn, _ = turns(math, sizes, t)
    if K_A > 1:
        own = (K_A - K_B * math.expm1(-turn)) / (K_A * (K_A + K_B))
        return log_mix(math, logits.alpha, own), t
    return log_mix(math, logits.rho * math.exp(-turn), 1 / (K_A + K_B)) - turn, t


def _increasing_root(
    function: Callable[[float], float],
    start: float,
    *,
    step: float,
    scale: float,
    highest: float = math.inf,
) -> float:
    """Return the root of an increasing function near a guess, or the highest place.

    To the last digits that float64 has, of the root or of the scale.
    """
    value = function(start)
    if value == 0:
        return start
    rising = value < 0
    inner = outer = start
    while value != 0 and (value < 0) == rising:
        if rising and outer >= highest:
            return highest
        inner, outer = outer, min(outer + (step if rising else -step), highest)
        value, step = function(outer), 2 * step
    bracket = min(inner, outer), max(inner, outer)
    digits = max(4 * EPS * scale, _LEAST)
    return float(brentq(function, *bracket, xtol=digits, rtol=4 * EPS))
