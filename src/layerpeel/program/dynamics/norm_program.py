r"""The one-dimensional program left of a deep linear network: the norm of its predictor.

.. math::
    f(s) = Q(s) + (D + 1) \, c \, s^p , \qquad p = \frac{2}{D + 1} , \qquad
    Q(s) = \min_{\|v\| = s} v^\top A v - 2 b^\top v .

Below the norm of the unregularised predictor, :math:`Q` is convex and decreasing, with

.. math::
    v(\kappa) = (A + \kappa I)^{-1} b , \qquad s = \|v(\kappa)\| , \qquad
    Q'(s) = -2 \kappa s ,

so :math:`f` is stationary where :math:`\kappa = c \, s^{p - 2}`. For :math:`D \leq 1` it is
convex. For :math:`D \geq 2` the penalty is concave, zero is a local minimum, and there can
be several others when the eigenvalues of :math:`A` are far apart; the least is found by
branch and bound, with tangents of :math:`Q` and chords of the penalty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq

from layerpeel._tolerances import EPS

# Pieces of log(kappa) to begin with, and how often undecided ones are halved: bounds are
# of second order in the width, so thirty halvings reach far below rounding.
_PIECES = 64
_HALVINGS = 30

# The relative gap at which a piece is settled.
_SETTLED = 1e-13

# The logarithm of the largest multiplier: predictors are then zero in float64.
_LARGEST = 700.0

# A sharper root does not change the predictor.
_ROOT_TOL = 4 * EPS

Values = Float64[np.ndarray, " n"]
Modes = Float64[np.ndarray, " p"]


@dataclass(frozen=True)
class NormSolution:
    """The best norm, by its multiplier, and what is proved about it.

    Attributes:
        kappa: The multiplier; infinite for the zero predictor.
        objective: The value.
        lower_bound: A bound on all values.
    """

    kappa: float
    objective: float
    lower_bound: float


@dataclass(frozen=True, eq=False)
class NormProgram:
    """The program in the eigenbasis of the covariance.

    Attributes:
        variances: The eigenvalues of A, shape ``(p,)``; positive wherever there is
            correlation.
        correlations: The coordinates of b, shape ``(p,)``.
        penalty: The constant c.
        hidden: The number of hidden layers D.
    """

    variances: Modes
    correlations: Modes
    penalty: float
    hidden: int

    def solve(self) -> NormSolution:
        """Return the global minimum."""
        if self.hidden == 0:
            return self._convex(self.penalty)
        if self.hidden == 1:
            return self._group_lasso()
        return self._deep()

    @property
    def power(self) -> float:
        """The power p of the norm."""
        return 2 / (self.hidden + 1)

    @property
    def size(self) -> float:
        """The norm of the correlations."""
        return float(np.linalg.norm(self.correlations))

    @property
    def largest_norm(self) -> float:
        """The norm of the unregularised predictor."""
        return float(self.norms(np.array([0.0]))[0])

    def predictors(self, kappa: Values) -> Float64[np.ndarray, "n p"]:
        """Return v, one row per multiplier; directions without correlation are left out."""
        there = self.correlations != 0
        vectors = np.zeros((len(kappa), len(there)))
        scale = self.variances[there] + kappa[:, None]
        vectors[:, there] = self.correlations[there] / scale
        return vectors

    def norms(self, kappa: Values) -> Values:
        """Return s."""
        norms: Values = np.linalg.norm(self.predictors(kappa), axis=1)
        return norms

    def fits(self, kappa: Values) -> Values:
        """Return Q: v'Av - 2 b'v = -b'v - kappa s^2."""
        vectors = self.predictors(kappa)
        fits: Values = -vectors @ self.correlations - kappa * self.norms(kappa) ** 2
        return fits

    def penalties(self, norms: Values) -> Values:
        """Return (D + 1) c s^p."""
        return (self.hidden + 1) * self.penalty * norms**self.power

    def _convex(self, kappa: float) -> NormSolution:
        """Bound a convex program by the tangent of Q at a multiplier."""
        at = np.array([kappa])
        norm, fit = self.norms(at)[0], self.fits(at)[0]
        objective = float(fit + self.penalties(np.array([norm]))[0])
        slope, excess = -2 * kappa * norm, float(fit + 2 * kappa * norm**2)
        if self.hidden == 0:  # the least of slope s + c s^2
            bound = excess - slope**2 / (4 * self.penalty)
        else:  # the least of (slope + 2 c) s
            bound = excess + min(0.0, slope + 2 * self.penalty) * self.largest_norm
        return NormSolution(kappa, objective, min(float(bound), objective))

    def _group_lasso(self) -> NormSolution:
        """One hidden layer: zero wins exactly if the correlation is at most c."""
        if self.size <= self.penalty:
            return NormSolution(math.inf, 0.0, 0.0)
        low = self.penalty / self.largest_norm
        high = self.penalty * self.variances.max() / (self.size - self.penalty)
        return self._convex(self._root(math.log(low), math.log(high)))

    def _root(self, low: float, high: float) -> float:
        """Return the stationary multiplier between two logarithms."""
        if not self._excess(low) < 0 < self._excess(high):
            # Rounding of the ends: one of them is the root.
            ends = [low, high]
            return math.exp(min(ends, key=lambda end: abs(self._excess(end))))
        return math.exp(brentq(self._excess, low, high, xtol=_ROOT_TOL, rtol=_ROOT_TOL))

    def _excess(self, log_kappa: float) -> float:
        """Return log of kappa against c s^(p-2); f falls with s where it is positive."""
        # In units of the larger of kappa and the variances, the norm does not underflow.
        unit = max(log_kappa, math.log(self.variances.max()))
        scaled = self.variances * math.exp(-unit) + math.exp(log_kappa - unit)
        shares = (self.correlations / self.size) / np.where(scaled > 0, scaled, 1.0)
        log_norm = math.log(np.linalg.norm(shares)) + math.log(self.size) - unit
        return log_kappa - math.log(self.penalty) + (2 - self.power) * log_norm

    def _deep(self) -> NormSolution:
        """Several hidden layers: branch and bound over the multiplier."""
        if self.size == 0 or self._zero_is_clear():
            return NormSolution(math.inf, 0.0, 0.0)
        pieces = _Pieces.of(self, np.linspace(*self._range(), _PIECES + 1))
        best, bound = self._best(pieces), 0.0
        for _ in range(_HALVINGS):
            settled = pieces.bounds >= best.objective - _SETTLED * abs(best.objective)
            bound = min(bound, pieces.bounds[settled].min(initial=0.0))
            pieces = pieces.where(~settled)
            if not len(pieces.bounds):
                break
            pieces = pieces.halved(self)
            found = self._best(pieces)
            best = min(best, found, key=lambda solution: solution.objective)
        bound = min(bound, pieces.bounds.min(initial=0.0), best.objective)
        return NormSolution(best.kappa, best.objective, float(bound))

    def _zero_is_clear(self) -> bool:
        """Whether f is positive at every norm, as Q >= -2 |b| s."""
        log_cost = math.log((self.hidden + 1) * self.penalty)
        log_cost -= (1 - self.power) * math.log(self.largest_norm)
        return log_cost >= math.log(2) + math.log(self.size)

    def _range(self) -> tuple[float, float]:
        """Return logarithms between which the multiplier of every minimum lies.

        Below, f grows with the norm; above, f is positive, as Q >= -2 |b| s.
        """
        low = math.log(self.penalty) - (2 - self.power) * math.log(self.largest_norm)
        log_norm = math.log((self.hidden + 1) * self.penalty / (2 * self.size))
        high = math.log(self.size) - log_norm / (1 - self.power)
        return low, min(max(high, low + 1.0), _LARGEST)

    def _best(self, pieces: _Pieces) -> NormSolution:
        """Return the best of zero and the stationary points bracketed by the pieces."""
        best = NormSolution(math.inf, 0.0, 0.0)
        for low, high in pieces.brackets(self):
            kappa = np.array([self._root(low, high)])
            value = float((self.fits(kappa) + self.penalties(self.norms(kappa)))[0])
            if value < best.objective:
                best = NormSolution(float(kappa[0]), value, 0.0)
        return best


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Intervals of the logarithm of the multiplier, each with a lower bound."""

    low: Values
    high: Values
    bounds: Values

    @classmethod
    def of(cls, program: NormProgram, grid: Values) -> _Pieces:
        return cls.between(program, grid[:-1], grid[1:])

    @classmethod
    def between(cls, program: NormProgram, low: Values, high: Values) -> _Pieces:
        return cls(low, high, _lower_bounds(program, np.exp(low), np.exp(high)))

    def where(self, keep: np.ndarray) -> _Pieces:
        return _Pieces(self.low[keep], self.high[keep], self.bounds[keep])

    def halved(self, program: NormProgram) -> _Pieces:
        middle = (self.low + self.high) / 2
        low = np.concatenate([self.low, middle])
        return _Pieces.between(program, low, np.concatenate([middle, self.high]))

    def brackets(self, program: NormProgram) -> list[tuple[float, float]]:
        """Return the pieces across which f turns from falling to growing with s."""
        ends = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return [
            (low, high)
            for low, high in ends
            if program._excess(low) < 0 <= program._excess(high)
        ]


def _lower_bounds(program: NormProgram, low: Values, high: Values) -> Values:
    """Bound f between two multipliers: two tangents of Q, and a chord of the penalty."""
    far, near = program.norms(low), program.norms(high)  # near <= far
    fit_far, fit_near = program.fits(low), program.fits(high)
    slope_far, slope_near = -2 * low * far, -2 * high * near
    cost_far, cost_near = program.penalties(far), program.penalties(near)
    # The tangents meet between the ends; Q is convex, so they do.
    bend = slope_far - slope_near
    meet = fit_near - slope_near * near - fit_far + slope_far * far
    kink = np.clip(meet / np.where(bend > 0, bend, 1.0), near, far)
    share = (kink - near) / np.where(far > near, far - near, 1.0)
    tangent = np.maximum(
        fit_near + slope_near * (kink - near), fit_far + slope_far * (kink - far)
    )
    chord = cost_near + share * (cost_far - cost_near)
    bounds: Values = np.minimum.reduce(
        [tangent + chord, fit_near + cost_near, fit_far + cost_far]
    )
    return bounds
