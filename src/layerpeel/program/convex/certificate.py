r"""A lower bound on every one-layer program, evaluated at any logits.

By weak duality, for any matrix :math:`Q` whose columns are probabilities, the
cross-entropy with targets :math:`T`, loss weights :math:`\pi`, scales :math:`\gamma`,
offsets :math:`\iota` and margins :math:`m` has an optimum of at least

.. math::
    \sum_k \pi_k \mathrm{Ent}(q_k) + \langle \iota, (Q - T) \pi \rangle
    - \frac{1}{2 \lambda_b} \left\| \gamma \odot (Q - T) (\pi / m) \right\|^2

in the penalised program, if :math:`\|\operatorname{diag}(\gamma) (Q - T)
\operatorname{diag}(\pi / (m \delta))\|_2 \leq \mu`; with a budget, :math:`\tau` times
that norm is subtracted instead. Here :math:`Q = c P + (1 - c) T`, with :math:`P` the
softmax of the logits and the best :math:`c \in [0, 1]`. For the squared error the same
holds with :math:`c` times the residual. At the optimum :math:`c = 1`, and it is tight.

With a free bias, :math:`(Q - T)(\pi / m)` has to vanish. Where it almost does,
probability can be moved from the rows with too much to those with too little until it
does; what that can cost at most, and what rounding can do, is subtracted.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | convex form
    | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
    | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the same,
    | penalised
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.optimize import brentq

from layerpeel._tolerances import EPS
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.columns import Columns
from layerpeel.program.solution import Certificate
from layerpeel.program.spectrum import BlockSpectrum

# Mixing weights below this prove nothing that zero would not.
_LEAST_MIXING = 1e-300

# Rounding of sums of positive terms and of a spectral norm, in units of eps: blocked
# summation and LAPACK stay well below it up to thousands of classes.
_ULPS = 16.0


def certify(
    program: BlockProgram, point: Point, nuclear_norm: float
) -> tuple[Certificate, float]:
    r"""Evaluate the objective and the lower bound at a point.

    Args:
        program: The program.
        point: Logits and bias. A free bias should be stationary: see
            :func:`~layerpeel.program.convex.bias.stationary_bias`.
        nuclear_norm: The nuclear norm of X at the point; at most the budget where there
            is one.

    Returns:
        The certificate, and the logarithm of the objective, which is finite where the
        objective underflows.
    """
    columns = program.columns(point)
    value = columns.value + program.ridge_penalty(columns, point)
    if program.multiplier is not None:
        value += program.multiplier * nuclear_norm  # the unit is one with a penalty
    if value == 0:
        return Certificate(0.0, 0.0), -math.inf
    if not math.isfinite(value):
        return Certificate(math.nan, math.nan), math.nan
    lower, doubt = _Bound.at(program, columns).best()
    # Rounding can push the bound past the objective; what it can do is part of the gap.
    # No objective is negative, so that the gap is at most one.
    gap = min((max(value - lower, 0.0) + doubt) / value, 1.0)
    log_objective = math.log(value) + columns.log_scale
    objective = math.exp(log_objective)
    certificate = Certificate(objective, objective * (1 - gap), scaled_gap=gap)
    return certificate, log_objective


def certify_spectrum(
    program: ClassLevel, spectrum: BlockSpectrum
) -> tuple[Certificate, float]:
    """Evaluate the certificate of a program without a bias at a spectrum of X.

    Args:
        program: The program, with the classes of each of the spectrum's groups alike.
        spectrum: The singular value decomposition of X.

    Returns:
        The certificate, and the logarithm of the objective.
    """
    blocks = BlockProgram.of(program, spectrum.groups)
    nothing = torch.zeros_like(blocks.sizes)
    point = Point(spectrum.within, spectrum.coupling, nothing)
    return certify(blocks, point, spectrum.nuclear_norm)


@dataclass(frozen=True, eq=False)
class _Bound:
    """The bound as a concave function of the mixing weight, in the columns' unit.

    Attributes:
        program: The program.
        columns: The loss at the logits.
        gradient: Its gradient.
        norm: The spectral norm of the gradient.
    """

    program: BlockProgram
    columns: Columns
    gradient: Point
    norm: float

    @classmethod
    def at(cls, program: BlockProgram, columns: Columns) -> _Bound:
        gradient = program.gradient(columns)
        return cls(program, columns, gradient, program.spectral_norm(gradient))

    def best(self) -> tuple[float, float]:
        """Return the largest value over the mixing weights, and the doubt about it."""
        mixing = self._best_mixing()
        dual, quadratic = self.columns.dual(mixing), mixing**2 * self._quadratic
        value = dual + mixing * self._linear - quadratic
        terms = abs(dual) + mixing * self._size + quadratic
        return value, _ULPS * EPS * terms + self._repair(mixing, value)

    @cached_property
    def _linear(self) -> float:
        """What offsets and a budget add, per unit of mixing."""
        return self._offsets(
            self.columns.residual.own, self.columns.residual.others
        ) - ((self.program.budget or 0.0) * self.norm)

    @cached_property
    def _size(self) -> float:
        """The terms of the linear part without their signs: they may cancel."""
        residual = self.columns.residual
        offsets = self._offsets(
            residual.own.abs(), residual.others.abs(), absolute=True
        )
        return offsets + (self.program.budget or 0.0) * self.norm

    def _offsets(
        self, own: torch.Tensor, others: torch.Tensor, absolute: bool = False
    ) -> float:
        """Return the inner product of offsets and residual."""
        offset = self.program.offset.abs() if absolute else self.program.offset
        rest = (self.columns.multiplicity * offset[:, None] * others).sum(dim=0)
        return float(self.program.sizes @ (own * offset + rest))

    @cached_property
    def _quadratic(self) -> float:
        """What a ridge subtracts, per squared unit of mixing."""
        if not self.program.ridge:
            return 0.0
        slope = float(self.gradient.bias.square().sum())
        return slope / (2 * self.program.ridge_in_unit(self.columns))

    @property
    def _largest(self) -> float:
        """The largest mixing weight: a penalty bounds the gradient by its multiplier."""
        multiplier = self.program.multiplier
        if multiplier is None or self.norm <= multiplier:
            return 1.0
        return multiplier / self.norm

    def _repair(self, mixing: float, value: float) -> float:
        """Return what it can cost at most to make a free bias stationary exactly.

        Every unit moved changes the entropy by the price of the columns, offsets by
        their range, and the spectral norm by the largest entry scale, twice: where it
        is taken and where it is put.
        """
        program = self.program
        if program.ridge != 0:
            return 0.0
        # A row of a group has the slope bias / root(m), and there are m of them.
        excess = self.gradient.bias.abs() * program.sizes.sqrt() / program.scale
        offset = 2 * float(program.offset.abs().max())
        price = self.columns.dual_price(mixing) + offset
        stretch = 2 * float(program.scale.max() / program.feature_weights.min())
        if program.multiplier is None:
            stretch *= program.budget or 0.0
        else:
            stretch *= max(value, 0.0) / program.multiplier
        most = float(program.margin.max()) * price + stretch
        return mixing * float(excess.sum()) * most

    def _slope(self, log_mixing: float) -> float:
        mixing = math.exp(log_mixing)
        rest = self._linear - 2 * mixing * self._quadratic
        return self.columns.dual_slope(mixing) + rest

    def _best_mixing(self) -> float:
        """Return where the decreasing slope is zero, or the largest weight allowed."""
        top = math.log(max(self._largest, _LEAST_MIXING))
        # The improvement over the largest weight is of the order of the gap squared.
        if self._slope(top) > -math.sqrt(EPS) * self.columns.value:
            return math.exp(top)
        bottom = top - 1.0
        while self._slope(bottom) < 0 and bottom > math.log(_LEAST_MIXING):
            bottom = max(2 * bottom, math.log(_LEAST_MIXING))
        if self._slope(bottom) < 0:
            return _LEAST_MIXING
        return math.exp(brentq(self._slope, bottom, top))
