r"""Losses of group-symmetric logits, column by column.

A column of the logits belongs to one class; in it, the classes of a group share one
logit, except the class itself. So a group-symmetric matrix is a pair: ``own`` with
shape ``(G,)``, and ``others`` with shape ``(G, G)``, entry ``[h, g]`` for the classes of
group ``h`` in the column of a class of group ``g`` (on the diagonal: its *other*
classes). ``multiplicity`` counts them.

Everything is multiplied by a common factor ``exp(-log_scale)``: a loss can be far below
the smallest float64, and its gradient in units of itself is still well scaled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import EPS

# A squared error of this size is the rounding of logits that meet their labels.
_NO_ERROR = 16 * EPS


class Blocks(NamedTuple):
    """A group-symmetric matrix: what a class gets itself, and what the others get."""

    own: Float64[Tensor, " G"]
    others: Float64[Tensor, "G G"]


@dataclass(frozen=True, eq=False)
class Columns(ABC):
    """The weighted losses at given logits.

    Attributes:
        logits: The logits that the loss sees.
        log_weights: Logarithm of the loss weight of one class, with shape ``(G,)``.
        sizes: Classes per group, with shape ``(G,)``.
        multiplicity: Classes of group ``h`` besides the own one, shape ``(G, G)``.
        log_scale: The logarithm of the unit of everything below.
        log_value: The logarithm of the weighted loss itself; may be -inf.
    """

    logits: Blocks
    log_weights: Float64[Tensor, " G"]
    sizes: Float64[Tensor, " G"]
    multiplicity: Float64[Tensor, "G G"]
    log_scale: float
    log_value: float

    @property
    def weights(self) -> Float64[Tensor, " G"]:
        """The loss weight of one class in the unit, with shape ``(G,)``."""
        return torch.exp(self.log_weights - self.log_scale)

    @property
    def value(self) -> float:
        """The weighted loss, in the unit."""
        return math.exp(self.log_value - self.log_scale)

    @property
    @abstractmethod
    def residual(self) -> Blocks:
        """The derivative in the logits of one column, in the unit."""

    @abstractmethod
    def curvature(self, direction: Blocks) -> Blocks:
        """Return the Hessian of one column times a direction, in the unit."""

    @property
    @abstractmethod
    def curvature_diagonal(self) -> Blocks:
        """The diagonal of that Hessian."""

    @abstractmethod
    def balanced(self, residual: Blocks) -> Blocks:
        """Return a residual that is near, and one of the loss but for its signs."""

    @abstractmethod
    def divergence(self, residual: Blocks) -> float:
        r"""Return a bound on what the conjugate costs at another residual, in the unit.

        That is :math:`\ell(a) + \ell^*(r) - \langle r, a \rangle`, zero at the residual
        of the logits themselves and of second order in what is between; infinite where
        the residual is none of the loss.
        """

    @abstractmethod
    def dual(self, mixing: float) -> float:
        """Return minus the conjugate at a multiple of the residual, in the unit.

        The loss is at least ``dual(c) + c * <residual, logits>`` at *any* logits.
        """

    @abstractmethod
    def dual_slope(self, mixing: float) -> float:
        """Return the derivative of :meth:`dual`."""

    @abstractmethod
    def dual_price(self, mixing: float) -> float:
        """Return what :meth:`dual` loses at most per unit of residual that is moved."""


@dataclass(frozen=True, eq=False)
class SoftmaxColumns(Columns):
    r"""Cross-entropy against targets :math:`(1 - \varepsilon_g) e_k + \varepsilon_g q`.

    Probabilities off the own class are kept rather than the own one: they can be
    :math:`10^{-300}`, and one minus them is one.

    Attributes:
        log_others: Log probability of one class other than the own, shape ``(G, G)``.
        targets: Target of one class other than the own, shape ``(G, G)``.
        smoothed: Whether any target is not one-hot.
    """

    log_others: Float64[Tensor, "G G"]
    targets: Float64[Tensor, "G G"]
    smoothed: bool

    @classmethod
    def at(
        cls,
        logits: Blocks,
        log_weights: Float64[Tensor, " G"],
        sizes: Float64[Tensor, " G"],
        targets: Float64[Tensor, "G G"],
        in_own_unit: bool,
    ) -> SoftmaxColumns:
        """Evaluate the softmax; in units of the loss itself where asked for.

        Smoothed losses cannot be small and are not put in a unit.
        """
        multiplicity = _multiplicity(sizes)
        gaps = logits.others - logits.own
        log_ratio = torch.logsumexp(gaps + multiplicity.log(), dim=0)
        losses = torch.logaddexp(torch.zeros_like(log_ratio), log_ratio)
        smoothed = bool((targets > 0).any())
        if smoothed:
            # No cancellation: targets are on classes whose gaps are negative.
            losses = losses - (multiplicity * targets * gaps).sum(dim=0)
            log_value = _log(float((sizes * log_weights.exp()) @ losses))
        else:
            terms = log_weights + sizes.log() + _log_softplus(log_ratio, losses)
            log_value = float(torch.logsumexp(terms, dim=0))
        # A group of one class has no others: its log odds of -inf must not reach 0 * inf.
        log_others = gaps - torch.logaddexp(torch.zeros_like(log_ratio), log_ratio)
        log_others = torch.where(multiplicity > 0, log_others, -torch.inf)
        log_scale = log_value if in_own_unit and not smoothed else 0.0
        given = (logits, log_weights, sizes, multiplicity)
        return cls(*given, log_scale, log_value, log_others, targets, smoothed)

    @cached_property
    def _shares(self) -> Float64[Tensor, "G G"]:
        """Probability of all other classes of a group."""
        return self.multiplicity * self.log_others.exp()

    @cached_property
    def _off(self) -> Float64[Tensor, " G"]:
        """Probability off the own class, with shape ``(G,)``."""
        return self._shares.sum(dim=0)

    @cached_property
    def _own(self) -> Float64[Tensor, " G"]:
        """Probability of the own class, which may be tiny as well."""
        gaps = self.logits.others - self.logits.own
        log_odds = torch.logsumexp(gaps + self.multiplicity.log(), dim=0)
        return torch.sigmoid(-log_odds)

    @cached_property
    def _weighted(self) -> Float64[Tensor, "G G"]:
        """Weighted probability of one other class."""
        return self._weigh(self.log_others)

    @property
    def residual(self) -> Blocks:
        """Probabilities minus targets."""
        others = self._weighted
        if self.smoothed:
            others = others - self.targets * self.weights
        return self._zero_sum(others)

    def curvature(self, direction: Blocks) -> Blocks:
        """Return the weighted covariance of the softmax times a direction."""
        change = direction.others - direction.own
        mean = (self._shares * change).sum(dim=0)
        return self._zero_sum(change.sub_(mean).mul_(self._weighted))

    @property
    def curvature_diagonal(self) -> Blocks:
        """The weighted variances of the softmax."""
        others = self._weighted * -torch.expm1(self.log_others)
        own = (self.multiplicity * self._weighted).sum(dim=0) * (1 - self._off)
        return Blocks(own.clamp(min=0), others)

    def _zero_sum(self, others: Float64[Tensor, "G G"]) -> Blocks:
        """Return the column whose entries sum to zero, without 1 - p."""
        return Blocks(-(self.multiplicity * others).sum(dim=0), others)

    def balanced(self, residual: Blocks) -> Blocks:
        """Return the residual whose columns sum to zero exactly."""
        return self._zero_sum(residual.others)

    def divergence(self, residual: Blocks) -> float:
        r"""Return :math:`\sum (q - p)^2 / p`, no less than the divergence."""
        others = residual.others
        if self.smoothed:
            others = others + self.targets * self.weights
        there = (self.multiplicity > 0) & (others != self._weighted)
        change = torch.where(there, others / self._weighted - 1, 0.0)
        moved = self.multiplicity * self._weighted * change
        # What the others gain, the class itself loses, at most all it has.
        lost, own = (self._shares * change).sum(dim=0), self._own
        possible = bool((change >= -1).all()) and bool((lost <= own).all())
        square = (moved * change).sum(dim=0)
        square = square + torch.where(lost == 0, 0.0, moved.sum(dim=0) * lost / own)
        total = float(self.sizes @ square)
        return total if possible and math.isfinite(total) else math.inf

    def dual(self, mixing: float) -> float:
        """Return the weighted entropy of the mixture c P + (1 - c) T."""
        log_mixed = self._log_mixed(mixing)
        off = (self.multiplicity * log_mixed.exp()).sum(dim=0)
        mass = self.multiplicity * self._weigh(log_mixed)
        others = (mass * -_finite(log_mixed)).sum(dim=0)
        own = mass.sum(dim=0) * _own_entropy_factor(off)
        return float(self.sizes @ (others + own))

    def dual_slope(self, mixing: float) -> float:
        """Return the derivative of the entropy along P - T."""
        log_mixed = self._log_mixed(mixing)
        off = (self.multiplicity * log_mixed.exp()).sum(dim=0)
        log_own = torch.log1p(-off.clamp(max=1 - EPS))
        gain = self.multiplicity * (log_own - _finite(log_mixed))
        return float(self.sizes @ (self.residual.others * gain).sum(dim=0))

    def dual_price(self, mixing: float) -> float:
        """Return the largest slope of the entropy: -log q on the mass taken, 1 else."""
        return 1 - float(_finite(self._log_mixed(mixing)).min())

    def _weigh(self, log_values: Float64[Tensor, "G G"]) -> Float64[Tensor, "G G"]:
        """Return weighted probabilities, from logarithms."""
        log_weighted = log_values + (self.log_weights - self.log_scale)
        if self.log_scale != 0:
            # No more than the loss itself; but rounding of huge logits knows no bounds.
            log_weighted = log_weighted.clamp_(max=0)
        return log_weighted.exp_()

    def _log_mixed(self, mixing: float) -> Float64[Tensor, "G G"]:
        mixed = self.log_others + math.log(mixing)
        if not self.smoothed or mixing == 1:
            return mixed
        return torch.logaddexp(mixed, self.targets.log() + math.log1p(-mixing))


@dataclass(frozen=True, eq=False)
class SquaredColumns(Columns):
    r"""Half the squared distance to one-hot labels."""

    @classmethod
    def at(
        cls,
        logits: Blocks,
        log_weights: Float64[Tensor, " G"],
        sizes: Float64[Tensor, " G"],
    ) -> SquaredColumns:
        """Evaluate the squared error."""
        multiplicity = _multiplicity(sizes)
        squares = (logits.own - 1).square()
        squares = squares + (multiplicity * logits.others.square()).sum(dim=0)
        squares = torch.where(squares > _NO_ERROR**2, squares, 0.0)
        value = 0.5 * float((sizes * log_weights.exp()) @ squares)
        return cls(logits, log_weights, sizes, multiplicity, 0.0, _log(value))

    @property
    def residual(self) -> Blocks:
        """The weighted errors."""
        return self.curvature(Blocks(self.logits.own - 1, self.logits.others))

    def curvature(self, direction: Blocks) -> Blocks:
        """Return the direction, weighted."""
        return Blocks(self.weights * direction.own, self.weights * direction.others)

    @property
    def curvature_diagonal(self) -> Blocks:
        """The weights."""
        G = len(self.sizes)
        return Blocks(self.weights, self.weights.repeat(G, 1))

    def balanced(self, residual: Blocks) -> Blocks:
        """Return the residual: every one is that of some logits."""
        return residual

    def divergence(self, residual: Blocks) -> float:
        """Return half the squared distance of the residuals, exactly."""
        now = self.residual
        squares = (residual.own - now.own).square()
        change = (residual.others - now.others).square()
        squares = squares + (self.multiplicity * change).sum(dim=0)
        return 0.5 * float(self.sizes @ (squares / self.weights))

    def dual(self, mixing: float) -> float:
        r"""Return :math:`-c \langle r, e \rangle - \frac{c^2}{2} \|r\|^2`, weighted."""
        return -mixing * self._with_labels - mixing**2 * self.value

    def dual_slope(self, mixing: float) -> float:
        """Return the derivative of the dual."""
        return -self._with_labels - 2 * mixing * self.value

    def dual_price(self, mixing: float) -> float:
        """Return the size of a label."""
        return 1.0

    @property
    def _with_labels(self) -> float:
        """The inner product of the residual and the labels."""
        return float((self.sizes * self.weights) @ (self.logits.own - 1))


def _multiplicity(sizes: Float64[Tensor, " G"]) -> Float64[Tensor, "G G"]:
    return sizes[:, None] - torch.eye(len(sizes)).to(sizes)


def _finite(log_values: Tensor) -> Tensor:
    """Replace log 0 by 0, where it is multiplied by 0."""
    return torch.where(torch.isinf(log_values), 0.0, log_values)


def _own_entropy_factor(off: Tensor) -> Tensor:
    """Return -(1 - x) log(1 - x) / x: one to within rounding for small x."""
    safe = off.clamp(min=EPS, max=1.0)
    return torch.where(off > EPS, -torch.special.xlog1py(1 - safe, -safe) / safe, 1.0)


def _log(value: float) -> float:
    """Return the logarithm, -inf of zero, and no number of no number."""
    return math.log(value) if value != 0 else -math.inf


def _log_softplus(log_ratio: Tensor, losses: Tensor) -> Tensor:
    """Return log(log(1 + e^x)), which is x where e^x is below half an ulp of one."""
    small = log_ratio < math.log(EPS / 2)
    return torch.where(small, log_ratio, losses.clamp(min=EPS / 4).log())
