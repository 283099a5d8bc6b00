r"""Shrinkage: the scalar program behind every closed form of the squared error.

Each direction :math:`i` has a weight :math:`\pi_i`, a target :math:`s_i` and a fraction
:math:`z_i \in [0, 1]` of it that is reached:

.. math::
    \min_z \; \sum_i \frac{\pi_i}{2} (1 - z_i)^2
    + \frac{M + 1}{2} \, c \sum_i (s_i z_i)^{2 / (M + 1)}
    \qquad \text{or s.t.} \quad \sum_i s_i z_i \leq \tau \quad (M = 1) .

*Penalty.* Stationary residuals :math:`e_i = 1 - z_i` solve

.. math::
    e_i \, (1 - e_i)^{(M-1)/(M+1)} = \kappa_i , \qquad
    \kappa_i = c \, s_i^{2/(M+1)} / \pi_i ,

and have the value :math:`\frac{\pi_i}{2} e_i (1 + M z_i)`, which is below the
:math:`\frac{\pi_i}{2}` of :math:`z_i = 0` exactly when :math:`z_i > (M-1)/M`, that is

.. math::
    \kappa_i < \kappa^\star = \frac{1}{M} \left(\frac{M-1}{M}\right)^{(M-1)/(M+1)} .

For one layer the transition is continuous. For more it is of first order: the fraction
jumps to :math:`(M-1)/M`, and past the jump a positive root goes on existing that is a
local minimum only.

*Budget.* Water-filling, :math:`e_i = \min(1, \mu s_i / \pi_i)`.

The lower bound is the sum of the scalar minima; for one layer that is the Lagrangian
dual of the convex program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.program.closed._reach import are_alike
from layerpeel.program.regulariser import Regulariser
from layerpeel.program.solution import Certificate

# Newton's method below is monotone and quadratic: it takes 6 steps, 10 next to kappa*.
_NEWTON_STEPS = 60


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Optimal residuals.

    Attributes:
        residuals: :math:`e_i`, exactly one where nothing is reached, with shape
            ``(n,)``.
        certificate: The objective and the lower bound.
        proved: Whether the residuals are optimal; they may not be where a budget is
            filled in fewer directions than it would take.
    """

    residuals: Float64[Tensor, " n"]
    certificate: Certificate
    proved: bool

    @property
    def fractions(self) -> Float64[Tensor, " n"]:
        """The fractions :math:`z_i`."""
        return 1 - self.residuals

    @property
    def kept(self) -> Bool[Tensor, " n"]:
        """Which directions are not zero."""
        return self.residuals < 1


@dataclass(frozen=True, eq=False)
class ShrinkageProgram:
    r"""The program in the fractions.

    Attributes:
        weights: :math:`\pi > 0`, with shape ``(n,)``.
        targets: :math:`s > 0`, with shape ``(n,)``.
        width: The number of directions that may be nonzero.
    """

    weights: Float64[Tensor, " n"]
    targets: Float64[Tensor, " n"]
    width: int

    def solve(self, regulariser: Regulariser) -> Shrinkage:
        """Solve the program with a penalty or within a budget."""
        if regulariser.budget is not None:
            return self._within_budget(regulariser.budget)
        assert regulariser.multiplier is not None
        return self._penalised(regulariser.multiplier, regulariser.depth)

    def _penalised(self, multiplier: float, depth: int) -> Shrinkage:
        power = 2 / (depth + 1)
        log_kappa = math.log(multiplier) + power * self.targets.log()
        log_kappa = log_kappa - self.weights.log()
        residuals = penalised_residuals(log_kappa, depth)
        fractions = 1 - residuals
        gains = self.weights * fractions * (1 - depth * residuals)
        residuals = torch.where(self._widest(gains), residuals, 1.0)
        fractions = 1 - residuals
        penalties = (depth + 1) * multiplier * (self.targets * fractions) ** power
        objective = self._loss(residuals) + float(penalties.sum()) / 2
        minima = self.weights * residuals * (1 + depth * fractions)
        return Shrinkage(
            residuals, _certified(objective, float(minima.sum()) / 2), True
        )

    def _within_budget(self, tau: float) -> Shrinkage:
        full, bound = self._filled(tau, torch.ones_like(self.weights, dtype=torch.bool))
        objective = self._loss(full)
        if int((full < 1).sum()) <= self.width:
            return Shrinkage(full, _certified(objective, bound), True)
        worth = self.weights / self.targets
        residuals, narrow_bound = self._filled(tau, self._widest(worth))
        # One isotropic loss: the von Neumann trace inequality covers any rank.
        isotropic = are_alike(worth / self.targets)
        bound = narrow_bound if isotropic else bound
        return Shrinkage(residuals, _certified(self._loss(residuals), bound), isotropic)

    def _filled(
        self, tau: float, allowed: Bool[Tensor, " n"]
    ) -> tuple[Float64[Tensor, " n"], float]:
        """Return the residuals of water-filling, and its Lagrangian bound."""
        multiplier = _water_level(self.weights[allowed], self.targets[allowed], tau)
        pressed = torch.clamp(multiplier * self.targets / self.weights, max=1.0)
        residuals = torch.where(allowed, pressed, 1.0)
        # The budget left over, free of the cancellation in 1 - e.
        lacking = float(self.targets[allowed].sum()) - tau
        left = lacking - float((self.targets * residuals)[allowed].sum())
        overspent = multiplier * left if multiplier > 0 else 0.0
        return residuals, self._loss(residuals) + overspent

    def _widest(self, worth: Float64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Return the ``width`` directions that are worth most; of equals, the first."""
        order = torch.sort(worth, descending=True, stable=True).indices
        chosen = torch.zeros_like(worth, dtype=torch.bool)
        chosen[order[: self.width]] = True
        return chosen

    def _loss(self, residuals: Float64[Tensor, " n"]) -> float:
        return float(self.weights @ residuals.square()) / 2


def log_critical(depth: int) -> float:
    r"""Return :math:`\log \kappa^\star`, from where on a direction is zero.

    Args:
        depth: The number of layers :math:`M \geq 1`.
    """
    power = (depth - 1) / (depth + 1)
    jump = math.log1p(-1 / depth) if depth > 1 else 0.0
    return power * jump - math.log(depth)


def penalised_residuals(
    log_kappa: Float64[Tensor, " n"], depth: int
) -> Float64[Tensor, " n"]:
    r"""Return the residuals :math:`e` of least objective, 1 where that is :math:`z=0`.

    Newton's method in :math:`\log e` on
    :math:`\log e + \frac{M-1}{M+1} \log(1 - e) - \log \kappa`, which is concave and
    increasing up to :math:`e = 1/M`: from :math:`e = \kappa` it climbs to the root.

    Args:
        log_kappa: :math:`\log \kappa`, with shape :math:`(n,)`.
        depth: The number of layers :math:`M \geq 1`.

    Returns:
        The residuals, with shape :math:`(n,)`.

    Example:
        >>> kappa = torch.tensor([0.25, 0.40], dtype=torch.float64)
        >>> residuals = penalised_residuals(kappa.log(), depth=2)
        >>> residuals * (1 - residuals) ** (1 / 3)  # the second one has jumped to zero
        tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    power = (depth - 1) / (depth + 1)
    small = log_kappa < log_critical(depth)
    target = log_kappa[small]
    x = target.clone()
    for _ in range(_NEWTON_STEPS):
        e = x.exp()
        value = x - target + power * torch.log1p(-e)
        step = value / (1 - power * e / (1 - e))
        x = x - step
        if not bool((step.abs() > 4 * EPS * (1 + x.abs())).any()):
            break
    residuals = torch.ones_like(log_kappa)
    # Past 1 / M the root would not be the global minimum: that is rounding.
    residuals[small] = x.exp().clamp(max=1 / depth)
    return residuals


def _water_level(
    weights: Float64[Tensor, " n"], targets: Float64[Tensor, " n"], tau: float
) -> float:
    """Return the multiplier at which water-filling spends the budget, or zero."""
    if float(targets.sum()) <= tau:
        return 0.0
    # Directions enter in this order; with r of them the budget is linear in mu.
    order = torch.argsort(weights / targets, descending=True)
    pi, s = weights[order], targets[order]
    levels = (s.cumsum(0) - tau) / (s.square() / pi).cumsum(0)
    # The next level lies between the last one and the weight over target of the
    # direction that enters: levels rise while directions are worth entering, then fall.
    return float(levels.max())


def _certified(objective: float, bound: float) -> Certificate:
    # Rounding can push the bound past the objective by an ulp.
    return Certificate(objective, min(bound, objective))
