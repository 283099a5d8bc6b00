r"""The two-group optimum, by two nested root searches along an explicit path.

In the scalars of :class:`TwoGroups`, with :math:`u = \rho \cos\theta` and
:math:`v = \rho \sin\theta`, the logit of a majority class stands above those of its own
group by :math:`\alpha`, and above those of the minority by

.. math::
    y = \left(1 - \tfrac{1}{K_A}\right) \alpha
        + \tfrac{u}{K_A} \sqrt{\tfrac{K}{K_B}} ;

the same holds for a minority class with :math:`\beta`, :math:`v` and groups swapped.
Write :math:`\mu` for the multiplier of the norm budget, :math:`M_g = \mu / \pi_g`, and
:math:`a, b` for the probability that a majority class leaves to each class of its own
group and of the other. Stationarity in :math:`\alpha` and :math:`u` reads

.. math::
    K_A a + K_B b = M_A \quad (\text{or } \alpha = 0 \text{ and } M_A \geq 1) , \qquad
    b \sqrt{K K_B} = M_A \cos\theta ,

so **given** :math:`\mu` **and** :math:`\theta` **all scalars are explicit**. One
condition is left: both groups must mean the same :math:`\rho`, which is
:math:`u \sin\theta = v \cos\theta`. At fixed :math:`\mu`, :math:`u` grows and
:math:`v` falls with :math:`\theta`, so it has exactly one root with :math:`\rho > 0`
unless the minority vanishes; and the norm falls with :math:`\mu`, because the optimal
value is convex in the budget. Collapse needs no test: :math:`\beta = 0` is where
:math:`M_B \geq 1`.

Everything is in logarithms of probabilities, so that neither tiny nor huge energies
lose digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.optimize import brentq

from layerpeel._tolerances import EPS
from layerpeel.program.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)
from layerpeel.program.two_groups import TwoGroupLogits, TwoGroups

# Root searches stay this far, relatively, from probabilities that would be zero.
_EDGE = 1e-12


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
    if K_A == 1 and (
        K_B == 1 or program.log_ratio >= log_collapse_threshold(1, K_B, tau)
    ):
        return _solve_angle(program)
    path = _DualPath(program)

    def excess(log_odds: float) -> float:
        logits = path.at(log_odds)
        # rho < 0: the minority would vanish at this multiplier. It does not at the
        # optimum, so this multiplier is too large.
        return logits.nuclear_norm / tau - 1 if logits.rho >= 0 else -1.0

    log_odds = _increasing_root(excess, _balanced_log_odds(K_A + K_B, tau))
    return path.at(log_odds).scaled_to(tau, path.evaluations)


def _solve_angle(program: TwoGroups) -> TwoGroupLogits:
    r"""Return the logits when nothing is left but :math:`\rho = \tau` and the angle.

    So it is for one majority class and a single or collapsed minority. The condition is
    :math:`\pi_A b \sqrt{K_B} \tan\theta = \pi_B d \sqrt{K_A}`, whose logarithm grows
    with :math:`t = \log\tan\theta` at a slope of at least one.
    """
    K_B, K, tau = program.minority, program.num_classes, program.tau

    def condition(tilt: float) -> float:
        cos, sin = _cos_sin(tilt)
        y, s = tau * cos * math.sqrt(K / K_B), tau * sin * math.sqrt(K) / K_B
        log_b = -y - math.log1p(K_B * math.exp(-y))
        log_d = -s - math.log(K_B + math.exp(-s))
        return program.log_ratio + log_b - log_d + 0.5 * math.log(K_B) + tilt

    bound = min(abs(condition(0.0)) + 1, _widest_tilt(program))
    cos, sin = _cos_sin(_root(condition, -bound, bound))
    return TwoGroupLogits(program, 0.0, 0.0, tau, cos, sin)


class _Sides(NamedTuple):
    """What either side says about the logits, at one multiplier and one angle."""

    alpha: float
    u: float
    beta: float
    v: float
    cos: float
    sin: float

    @property
    def disagreement(self) -> float:
        """Zero where both sides mean the same singular value between the groups."""
        return self.u * self.sin - self.v * self.cos


class _DualPath:
    """The stationary logits as a function of the multiplier of the norm budget."""

    def __init__(self, program: TwoGroups) -> None:
        self.program = program
        self.evaluations = 0
        self._log_pi = program.log_frequencies()
        self._log_top = self._log_largest_multiplier()

    def at(self, log_odds: float) -> TwoGroupLogits:
        r"""Return the logits at :math:`\mu = \mu_{\max} / (1 + e^z)`, for log odds z.

        Near its upper end, where the logits go to zero, :math:`1 - \mu / \mu_{\max}`
        has to keep its digits; hence the log odds.
        """
        log_mu = self._log_top - _softplus(log_odds)
        log_M = log_mu - self._log_pi[0], log_mu - self._log_pi[1]

        def disagreement(tilt: float) -> float:
            return self._sides(log_M, tilt).disagreement

        low, high = self._tilts(log_M)
        # No root means u < 0 and v < 0 up to the edge: rho < 0.
        tilt = _root(disagreement, low, high) if disagreement(high) > 0 else high
        alpha, u, beta, v, cos, sin = self._sides(log_M, tilt)
        return TwoGroupLogits(self.program, alpha, beta, u * cos + v * sin, cos, sin)

    def _sides(self, log_M: tuple[float, float], tilt: float) -> _Sides:
        self.evaluations += 1
        K_A, K_B = self.program.majority, self.program.minority
        cos, sin = _cos_sin(tilt)
        alpha, u = _side(K_A, K_B, log_M[0], cos)
        beta, v = _side(K_B, K_A, log_M[1], sin)
        return _Sides(alpha, u, beta, v, cos, sin)

    def _tilts(self, log_M: tuple[float, float]) -> tuple[float, float]:
        """Return the widest angles at which all probabilities are positive."""
        K_A, K_B = self.program.majority, self.program.minority
        widest = _widest_tilt(self.program)
        return (
            max(-widest, -_log_tangent(_log_largest_sine(K_A, K_B, log_M[0]))),
            min(widest, _log_tangent(_log_largest_sine(K_B, K_A, log_M[1]))),
        )

    def _log_largest_multiplier(self) -> float:
        """Return the log of the gradient's spectral norm at zero logits."""
        K_A, K_B, K = (
            self.program.majority,
            self.program.minority,
            self.program.num_classes,
        )
        if K_A > 1:
            return self._log_pi[0]
        square = (K_B + K_A * math.exp(-2 * self.program.log_ratio)) / K
        return self._log_pi[0] + 0.5 * math.log(square)


def _side(m: int, o: int, log_M: float, cos: float) -> tuple[float, float]:
    r"""Return the spread and the between-part of one side, with its m and o others.

    With :math:`c = \cos\theta`, stationarity gives
    :math:`a = M (1 - c \sqrt{o / K}) / m` and :math:`b = M c / \sqrt{K o}`, hence
    :math:`e^\alpha = 1 + (1 - M) / a`. A side that has collapsed, or a single class,
    has :math:`\alpha = 0` and only the second condition.
    """
    root = math.sqrt(o / (m + o))
    if m == 1 or log_M >= 0:
        log_ob = log_M + math.log(cos * root)
        y = math.log1p(-math.exp(log_ob)) - log_ob + math.log(o / m)
        return 0.0, y * m * root
    own = (1 - cos * root) / m  # a / M
    other = cos * root / o  # b / M
    alpha = _softplus(math.log(-math.expm1(log_M)) - log_M - math.log(own))
    return alpha, (alpha / m + math.log(own / other)) * m * root


def _log_largest_sine(m: int, o: int, log_M: float) -> float:
    """Return the log of the projection at which the other group has probability one."""
    if m > 1 and log_M < 0:
        return 0.0
    # Just inside, where the own group still has a probability in float64.
    return 0.5 * math.log((m + o) / o) - log_M - _EDGE


def _log_tangent(log_sine: float) -> float:
    """Return the log of the tangent that belongs to a sine; infinite from one on."""
    if log_sine >= 0:
        return math.inf
    return log_sine - 0.5 * math.log(-math.expm1(2 * log_sine))


def _widest_tilt(program: TwoGroups) -> float:
    """Return a bound of the log tangent: e^60 times all that a ratio can ask for."""
    return min(60.0 + program.log_ratio, 700.0)


def _cos_sin(tilt: float) -> tuple[float, float]:
    """Return cosine and sine from the log of the tangent, both to full precision."""
    return 1 / math.hypot(1, math.exp(tilt)), 1 / math.hypot(1, math.exp(-tilt))


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def _balanced_log_odds(num_classes: int, tau: float) -> float:
    r"""Return the log of :math:`\mu_{\max} / \mu - 1` for balanced classes."""
    spread = tau / (num_classes - 1)
    return spread + math.log(-math.expm1(-spread)) - math.log(num_classes)


def _increasing_root(function: Callable[[float], float], start: float) -> float:
    """Return the root of an increasing function, near a guess."""
    inner = outer = start
    value = function(start)
    step = 1.0 if value < 0 else -1.0
    while step * value < 0 and outer > -700:
        inner, outer, step = outer, outer + step, 2 * step
        value = function(outer)
    if inner == outer:
        return start
    return _root(function, min(inner, outer), max(inner, outer))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return a bracketed root, to the last digits that float64 has."""
    return float(brentq(function, low, high, xtol=4 * EPS, rtol=4 * EPS))
