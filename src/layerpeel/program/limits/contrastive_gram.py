r"""The convex program of supervised contrastive learning, in the class Gram matrix.

Per pair of groups of equally frequent classes, one cosine :math:`x_{gh}` between
different classes is left. In the basis of group indicators and their complements, the
Gram matrix is positive semidefinite exactly when

.. math::
    M(x) = \operatorname{diag}\left(1 + (m_g - 1) x_{gg}\right)
    + \left( \sqrt{m_g m_h} \, x_{gh} \right)_{g \neq h} \succeq 0
    \qquad \text{and} \qquad x_{gg} \leq 1 .

A logarithmic barrier keeps both strict, and Newton's method follows its minimisers. The
barrier's stationarity *is* dual feasibility, so every step has a lower bound at hand:
with the gradient of the convex loss, :math:`\nabla_{gh} = 2 \sqrt{m_g m_h} S_{gh}` off
the diagonal, any :math:`S \succeq 0` with :math:`(m_g - 1) S_{gg} \geq \nabla_{gg}`
bounds the loss by its value less

.. math::
    \langle S, M(x) \rangle + \sum_g \left( (m_g - 1) S_{gg} - \nabla_{gg} \right)
    (1 - x_{gg}) .

Everything is in units of the current loss, which can be far below the smallest float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import solve_triangular

from layerpeel._tolerances import EPS

# The relative gap aimed at, a few thousand ulps.
_GOAL = 1e-12

# The barrier is weakened by this factor whenever its minimiser has been followed.
_WEAKEN = 0.2

# About a hundred are taken for a squared radius of ten, four hundred for a thousand.
_MOST_STEPS = 2000

# The share of the promised decrease a step must bring, and the shortest step tried.
_ARMIJO = 1e-4
_SHORTEST = 2.0**-40

# With the gap closed, rounding is what keeps so many steps in a row from converging.
_PATIENCE = 20

# Newton's method converges quadratically once its decrement, in units of the barrier, and
# the change of the exponents are below these.
_NEAR_DECREMENT = 0.1
_NEAR_CHANGE = 0.5


Values = Float64[np.ndarray, " n"]
Square = Float64[np.ndarray, "n n"]


@dataclass(frozen=True)
class GramSolution:
    """The cosines found, and what is proved about them.

    Attributes:
        cosines: Between different classes of each pair of groups, shape ``(G, G)``;
            meaningless on the diagonal for a group of one class.
        log_excess: Logarithm of the loss above its constant.
        gap: Relative gap of the loss above its constant.
        steps: Newton steps taken.
    """

    cosines: Float64[np.ndarray, "G G"]
    log_excess: float
    gap: float
    steps: int


@dataclass(frozen=True, eq=False)
class GramProgram:
    r"""The loss above its constant, :math:`\sum_k n_k \log(1 + \ldots)`.

    .. math::
        \varphi(x) = \sum_g m_g n_g \log\left(1 + \sum_h (m_h - \delta_{gh})
        \frac{n_h}{n_g - 1} e^{\rho^2 (x_{gh} - 1)} \right)

    Attributes:
        sizes: Classes per group :math:`m_g`, shape ``(G,)``.
        counts: Samples per class :math:`n_g > 1`, shape ``(G,)``.
        squared_radius: :math:`\rho^2`.
    """

    sizes: Float64[np.ndarray, " G"]
    counts: Float64[np.ndarray, " G"]
    squared_radius: float

    def solve(self) -> GramSolution:
        """Follow the barrier's minimisers until rounding stops the steps.

        A gap determines a cosine only as far as the loss depends on it: little for rare
        classes, and for a small radius. So the barrier is weakened far beyond the gap
        aimed at, as long as that is kept; Newton's steps need no digits of the loss.
        """
        share, far = 1.0, 0  # far: steps in a row that were not near a minimiser
        point = _Point.of(self, np.zeros(len(self.pairs[0])), share)  # orthogonal
        best = GramSolution(self.matrix(point.x), point.log_loss, math.inf, 0)
        for step in range(_MOST_STEPS):
            if point.gap <= max(best.gap, _GOAL):
                best = GramSolution(
                    self.matrix(point.x), point.log_loss, point.gap, step
                )
            following = point.step()
            creeping = far > _PATIENCE and best.gap <= _GOAL
            if following is None or creeping or share < self._least_share:
                break
            far = 0 if point.near else far + 1
            share *= _WEAKEN if point.near else 1.0
            point = _Point.of(self, following, share)
        return best

    @property
    def _least_share(self) -> float:
        samples = self.sizes * self.counts
        flatness = min(1.0, self.squared_radius) ** 2 * samples.min() / samples.sum()
        return _GOAL * float(flatness)

    @cached_property
    def pairs(self) -> tuple[Int64[np.ndarray, " v"], Int64[np.ndarray, " v"]]:
        """The groups of each variable; a group of one class has none of its own."""
        row, column = np.triu_indices(len(self.sizes))
        exists = (row != column) | (self.sizes[row] > 1)
        return row[exists], column[exists]

    @cached_property
    def weights(self) -> Float64[np.ndarray, " v"]:
        """Half the derivative of <S, M> by each variable, per entry of S."""
        row, column = self.pairs
        weights: Values = np.sqrt(self.sizes[row] * self.sizes[column])
        own = row == column
        weights[own] = (self.sizes[row][own] - 1) / 2
        return weights

    @property
    def own(self) -> Int64[np.ndarray, " w"]:
        """The variables of pairs within one group."""
        row, column = self.pairs
        return np.flatnonzero(row == column)

    def matrix(self, x: Float64[np.ndarray, " v"]) -> Float64[np.ndarray, "G G"]:
        """Return the variables as a symmetric matrix."""
        full = np.zeros((len(self.sizes), len(self.sizes)))
        full[self.pairs] = x
        full.T[self.pairs] = x
        return full

    def cone(self, x: Float64[np.ndarray, " v"]) -> Float64[np.ndarray, "G G"]:
        """Return M(x)."""
        return self.cone_of(self.matrix(x))

    def cone_of(
        self, cosines: Float64[np.ndarray, "G G"]
    ) -> Float64[np.ndarray, "G G"]:
        """Return M of cosines given as a matrix."""
        root = np.sqrt(self.sizes)
        full = cosines * np.outer(root, root)
        np.fill_diagonal(full, 1 + (self.sizes - 1) * np.diag(cosines))
        return full

    def log_odds(self, x: Float64[np.ndarray, " v"]) -> Float64[np.ndarray, "G G"]:
        """Return the log of each group's weight against the positives, by anchor."""
        others = self.sizes - np.eye(len(self.sizes))
        with np.errstate(divide="ignore"):
            log_weights = np.log(others * self.counts / (self.counts[:, None] - 1))
        log_odds: Square = log_weights + self.squared_radius * (self.matrix(x) - 1)
        return log_odds

    def log_loss(self, x: Float64[np.ndarray, " v"]) -> float:
        """Return the logarithm of the loss above its constant."""
        total = np.logaddexp.reduce(self.log_odds(x), axis=1)
        losses = np.logaddexp(0, total)
        # log(log(1 + e^x)) = x where e^x is below half an ulp of 1.
        tiny = total < math.log(EPS / 2)
        log_losses = np.where(tiny, total, np.log(np.where(tiny, 1.0, losses)))
        return float(np.logaddexp.reduce(np.log(self.sizes * self.counts) + log_losses))


@dataclass(frozen=True, eq=False)
class _Point:
    """A strictly feasible point under a barrier, in units of the loss at the point."""

    program: GramProgram
    x: Float64[np.ndarray, " v"]
    weight: float
    log_loss: float
    pull: Float64[np.ndarray, "G G"]  # derivative by each anchor's odds
    probability: Float64[np.ndarray, "G G"]
    inverse: Float64[np.ndarray, "G G"]  # of M(x)

    @classmethod
    def of(
        cls, program: GramProgram, x: Float64[np.ndarray, " v"], share: float
    ) -> _Point:
        log_loss, log_odds = program.log_loss(x), program.log_odds(x)
        total = np.logaddexp(0, np.logaddexp.reduce(log_odds, axis=1))[:, None]
        anchors = np.log(program.sizes * program.counts)[:, None] - log_loss
        cone = program.cone(x)
        # The same factorisation by which `_merit` has accepted the point.
        root = solve_triangular(np.linalg.cholesky(cone), np.eye(len(cone)), lower=True)
        return cls(
            program,
            x,
            share / (len(cone) + len(program.own)),
            log_loss,
            np.exp(anchors + log_odds - total),
            np.exp(log_odds - total),
            root.T @ root,
        )

    @property
    def slack(self) -> Float64[np.ndarray, " w"]:
        slack: Values = 1 - self.x[self.program.own]
        return slack

    @cached_property
    def slope(self) -> Float64[np.ndarray, " v"]:
        """The gradient of the loss."""
        row, column = self.program.pairs
        both = self.pull[row, column] + np.where(
            row == column, 0.0, self.pull[column, row]
        )
        slope: Values = self.program.squared_radius * both
        return slope

    @cached_property
    def gap(self) -> float:
        """The better of the gaps that two choices of the multipliers prove."""
        S = self.program.matrix(self.slope / (2 * self.program.weights))
        np.fill_diagonal(S, 0.0)
        cone = self.program.cone(self.x)
        # The barrier's own, until rounding spoils the inverse; and complementary slackness.
        barrier = self.weight * np.diag(self.inverse)
        complementary = -(S * cone).sum(axis=1) / np.diag(cone)
        return min(self._gap(S, barrier, cone), self._gap(S, complementary, cone))

    def _gap(
        self,
        multipliers: Float64[np.ndarray, "G G"],
        diagonal: Float64[np.ndarray, " G"],
        cone: Float64[np.ndarray, "G G"],
    ) -> float:
        """Return the gap that a diagonal proves, once it is large enough."""
        program, own = self.program, self.program.own
        groups = program.pairs[0][own]
        floor = np.zeros(len(diagonal))
        floor[groups] = self.slope[own] / (program.sizes[groups] - 1)
        S = multipliers + np.diag(np.maximum(diagonal, floor))
        shift = max(0.0, -float(np.linalg.eigvalsh(S)[0]))
        S[np.diag_indices_from(S)] += shift
        spread = (program.sizes[groups] - 1) * np.diag(S)[groups] - self.slope[own]
        return float((S * cone).sum() + spread @ self.slack)

    @cached_property
    def direction(self) -> Float64[np.ndarray, " v"] | None:
        """Newton's direction; ``None`` where the Hessian is singular."""
        hessian = self._curvature() + self.weight * self._barrier_curvature()
        try:
            return -np.linalg.solve(hessian, self._gradient)
        except np.linalg.LinAlgError:
            return None

    @cached_property
    def near(self) -> bool:
        """Whether full steps converge quadratically from here."""
        if self.direction is None:
            return False
        decrement = -float(self._gradient @ self.direction) / self.weight
        change = self.program.squared_radius * float(abs(self.direction).max())
        return decrement < _NEAR_DECREMENT and change < _NEAR_CHANGE

    def step(self) -> Float64[np.ndarray, " v"] | None:
        """Return the next point, or ``None`` where rounding leaves no decrease."""
        direction = self.direction
        if direction is None:
            return None
        there: Values = self.x + direction
        # Close to the minimiser, decreases are below the rounding of the loss.
        if self.near and math.isfinite(self._merit(there)):
            return there
        promised = float(self._gradient @ direction)
        here, length = self._merit(self.x), 1.0
        while length > _SHORTEST:
            if self._merit(there) <= here + _ARMIJO * length * promised:
                return there
            length /= 2
            there = self.x + length * direction
        return None

    @cached_property
    def _gradient(self) -> Float64[np.ndarray, " v"]:
        return self.slope + self.weight * self._barrier_slope()

    def _merit(self, x: Float64[np.ndarray, " v"]) -> float:
        """Return loss and barrier at another point; infinite outside."""
        slack = 1 - x[self.program.own]
        try:
            root = np.linalg.cholesky(self.program.cone(x))
        except np.linalg.LinAlgError:
            return math.inf
        if not (slack > 0).all():
            return math.inf
        barrier = 2 * np.log(np.diag(root)).sum() + np.log(slack).sum()
        change = self.program.log_loss(x) - self.log_loss
        return math.expm1(min(change, 700.0)) - self.weight * float(barrier)

    def _barrier_slope(self) -> Float64[np.ndarray, " v"]:
        slope: Values = -2 * self.program.weights * self.inverse[self.program.pairs]
        slope[self.program.own] += 1 / self.slack
        return slope

    def _barrier_curvature(self) -> Float64[np.ndarray, "v v"]:
        g, h = self.program.pairs
        S, w = self.inverse, self.program.weights
        crossed = S[np.ix_(g, g)] * S[np.ix_(h, h)] + S[np.ix_(g, h)] * S[np.ix_(h, g)]
        curvature: Square = 2 * np.outer(w, w) * crossed
        own = self.program.own
        curvature[own, own] += 1 / self.slack**2
        return curvature

    def _curvature(self) -> Float64[np.ndarray, "v v"]:
        """Return the Hessian of the loss: a softmax covariance per anchor group."""
        size = len(self.x)
        index = self.program.matrix(np.arange(1.0, size + 1)).astype(int) - 1
        curvature = np.zeros((size, size))
        for g, variables in enumerate(index):
            there = np.flatnonzero(variables >= 0)
            at = np.ix_(variables[there], variables[there])
            curvature[at] += np.diag(self.pull[g, there])
            curvature[at] -= np.outer(self.pull[g, there], self.probability[g, there])
        return np.multiply(curvature, self.program.squared_radius**2)
