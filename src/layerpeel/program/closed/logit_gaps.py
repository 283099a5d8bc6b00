r"""Logit gaps: the scalar program behind both closed forms of the cross-entropy.

Where the own logit of class :math:`k` is above all others by the same gap
:math:`a_k \geq 0`, and gaps have prices :math:`\kappa_k`, what is left is

.. math::
    \min_{a \geq 0} \; \sum_k \pi_k \left[ \log\left(1 + (K-1) e^{-a_k}\right)
    + \tfrac{K-1}{K} \varepsilon_k a_k \right] + \mu \sum_k \kappa_k a_k
    \qquad \text{or s.t.} \quad \sum_k \kappa_k a_k \leq \tau ,

with the linear term of label smoothing. The probability :math:`q_k` of all wrong
classes together then satisfies

.. math::
    q_k = \tfrac{K-1}{K} \varepsilon_k + \mu \kappa_k / \pi_k , \qquad
    a_k = \log \frac{(K-1)(1 - q_k)}{q_k} ,

and :math:`a_k = 0` where that exceeds :math:`(K-1)/K`, that is from the multiplier
:math:`\mu_k = \pi_k (1 - \varepsilon_k) (K-1) / (K \kappa_k)` on. Everything is a
function of the *depth* :math:`d_k = \log(\mu_k / \mu)` below that threshold, which
keeps all digits of tiny and of huge gaps:

.. math::
    q_k = \tfrac{K-1}{K} \left(\varepsilon_k + (1 - \varepsilon_k) e^{-d_k}\right) .

The lower bound is the Lagrangian at its minimiser. Losses can be far below the
smallest float64: everything is evaluated in units of the objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from scipy.optimize import brentq
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.program.regulariser import Regulariser
from layerpeel.program.solution import Certificate

# e^-800 is zero in float64: a class this far below its threshold has its largest gap.
_BOTTOMLESS = 800.0

# log(1 + e^x) is e^x to within rounding below this x.
_HALF_ULP = math.log(EPS / 2)


@dataclass(frozen=True, eq=False)
class LogitGaps:
    """Optimal logit gaps.

    Attributes:
        gaps: The gaps, exactly zero for collapsed classes, with shape ``(n,)``.
        certificate: The objective and the Lagrangian bound.
        log_objective: The logarithm of the objective.
    """

    gaps: Float64[Tensor, " n"]
    certificate: Certificate
    log_objective: float

    @classmethod
    def certified(
        cls, gaps: Float64[Tensor, " n"], log_objective: float, dual: float
    ) -> LogitGaps:
        """Return gaps with their certificate, given the bound over the objective."""
        objective = math.exp(log_objective)
        # Rounding can push the bound past the objective by an ulp.
        gap = max(0.0, 1 - dual)
        certificate = Certificate(objective, objective * (1 - gap), scaled_gap=gap)
        return cls(gaps, certificate, log_objective)

    @property
    def collapsed(self) -> int:
        """The number of classes without a gap."""
        return int((self.gaps == 0).sum())


@dataclass(frozen=True, eq=False)
class GapProgram:
    r"""The program in the gaps; classes that are alike may share one entry.

    Attributes:
        num_classes: The number of classes :math:`K`.
        weights: :math:`\pi`, with shape ``(n,)``.
        prices: :math:`\kappa`, with shape ``(n,)``.
        smoothing: :math:`\varepsilon`, with shape ``(n,)``.
    """

    num_classes: int
    weights: Float64[Tensor, " n"]
    prices: Float64[Tensor, " n"]
    smoothing: Float64[Tensor, " n"]

    def solve(self, regulariser: Regulariser) -> LogitGaps:
        """Solve the program with a penalty or within a budget."""
        if regulariser.budget is not None:
            return self._within_budget(regulariser.budget)
        assert regulariser.multiplier is not None
        return self._penalised(math.log(regulariser.multiplier))

    def _penalised(self, log_multiplier: float) -> LogitGaps:
        depths = (self._log_thresholds() - log_multiplier).clamp(min=0)
        gaps = self._gaps(depths)
        log_penalty = log_multiplier + float((self.prices * gaps).log().logsumexp(0))
        log_losses = _log_losses(math.log(self.num_classes - 1) - gaps)
        log_objective = _log_sum(self._log_mean(log_losses, gaps), log_penalty)
        dual = self._log_mean(self._log_own_losses(depths), gaps)
        dual = math.exp(dual - log_objective) + math.exp(log_penalty - log_objective)
        return LogitGaps.certified(gaps, log_objective, dual)

    def _within_budget(self, tau: float) -> LogitGaps:
        thresholds = self._log_thresholds()
        highest = float(thresholds.max())
        below = highest - thresholds
        lift = self._lift(below, tau)
        depths = (lift - below).clamp(min=0)
        gaps = self._gaps(depths)
        spent = self._spending(gaps, tau) if math.isfinite(lift) else gaps
        log_losses = _log_losses(math.log(self.num_classes - 1) - spent)
        log_objective = self._log_mean(log_losses, spent)
        dual = self._log_mean(self._log_own_losses(depths), gaps)
        relative_multiplier = math.exp(highest - lift - log_objective)
        overspent = float(self.prices @ gaps) - tau
        dual = math.exp(dual - log_objective) + relative_multiplier * overspent
        return LogitGaps.certified(spent, log_objective, dual)

    def _lift(self, below: Float64[Tensor, " n"], tau: float) -> float:
        """Return how far the multiplier is below the highest threshold, in logarithms.

        Infinitely far if the budget is not spent.
        """

        def excess(lift: float) -> float:
            gaps = self._gaps((lift - below).clamp(min=0))
            return float(self.prices @ gaps) / tau - 1

        sharp = self.smoothing == 0
        if bool(sharp.any()):
            # A gap is at least its depth, where nothing is smoothed.
            reach = (below + tau / self.prices)[sharp]
            farthest = float(reach.min()) * (1 + 8 * EPS)
        else:
            farthest = float(below.max()) + _BOTTOMLESS
            if excess(farthest) <= 0:
                return math.inf
        root = brentq(excess, 0.0, farthest, xtol=1e-300, rtol=8 * EPS, maxiter=2000)
        return float(root)

    def _spending(
        self, gaps: Float64[Tensor, " n"], tau: float
    ) -> Float64[Tensor, " n"]:
        """Spend what a root search left of the budget, a few ulps, evenly."""
        if gaps.min() == gaps.max():
            return torch.full_like(gaps, tau / float(self.prices.sum()))
        return gaps * (tau / float(self.prices @ gaps))

    @property
    def _log_chance(self) -> float:
        """The logarithm of (K - 1) / K, the probability of all others at chance."""
        return math.log1p(-1 / self.num_classes)

    def _log_thresholds(self) -> Float64[Tensor, " n"]:
        """Return the logarithms of the multipliers from which gaps are zero."""
        sharpness = torch.log1p(-self.smoothing) + self._log_chance
        return self.weights.log() - self.prices.log() + sharpness

    def _gaps(self, depths: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return torch.log1p(self._lead(depths)) - self._log_fall(depths)

    def _lead(self, depths: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Return K (1 - q) - 1, how far the own probability is above chance."""
        return -(self.num_classes - 1) * (1 - self.smoothing) * torch.expm1(-depths)

    def _log_fall(self, depths: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Return the logarithm of q over its value at chance."""
        near = torch.log1p((1 - self.smoothing) * torch.expm1(-depths.clamp(max=1)))
        own = torch.log1p(-self.smoothing) - depths
        far = torch.logaddexp(self.smoothing.log(), own)
        return torch.where(depths < 1, near, far)

    def _log_own_losses(self, depths: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Return the logarithms of -log(1 - q)."""
        log_q = self._log_chance + self._log_fall(depths)
        # 1 - q = (1 + lead) / K, which keeps its digits where q is close to 1.
        unlikely = math.log(self.num_classes) - torch.log1p(self._lead(depths))
        half = math.log(0.5)
        likely = -torch.log1p(-log_q.clamp(max=half).exp())
        exact = torch.where(log_q < half, likely, unlikely).log()
        return torch.where(log_q < _HALF_ULP, log_q, exact)

    def _log_mean(
        self, log_losses: Float64[Tensor, " n"], gaps: Float64[Tensor, " n"]
    ) -> float:
        """Return the logarithm of the weighted loss, with its linear term."""
        slope = self.smoothing * (1 - 1 / self.num_classes)
        terms = torch.logaddexp(log_losses, (slope * gaps).log())
        return float((self.weights.log() + terms).logsumexp(0))


def _log_losses(log_odds: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Return log(log(1 + e^x))."""
    exact = torch.logaddexp(torch.zeros_like(log_odds), log_odds).log()
    return torch.where(log_odds < _HALF_ULP, log_odds, exact)


def _log_sum(first: float, second: float) -> float:
    """Return log(e^x + e^y)."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))
