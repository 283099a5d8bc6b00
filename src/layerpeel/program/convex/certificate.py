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

That bound is of first order in the error of the logits. Near the optimum a :math:`Q`
beside :math:`P` is better, of second order
(:mod:`~layerpeel.program.convex.aligned`). The higher of the two counts.

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
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from scipy.optimize import brentq

from layerpeel._tolerances import EPS
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.convex.aligned import aligned_residual, misalignment
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.columns import Blocks, Columns
from layerpeel.program.convex.directions import Directions
from layerpeel.program.solution import Certificate
from layerpeel.program.spectrum import BlockSpectrum

# Mixing weights below this prove nothing that zero would not.
_LEAST_MIXING = 1e-300

# Rounding of sums of positive terms and of a spectral norm, in units of eps: blocked
# summation and LAPACK stay well below it up to thousands of classes.
_ULPS = 16.0


def certify(
    program: BlockProgram, point: Point, directions: Directions
) -> tuple[Certificate, float]:
    r"""Evaluate the objective and the lower bound at a point.

    Args:
        program: The program.
        point: Logits and bias. A free bias should be stationary: see
            :func:`~layerpeel.program.convex.bias.stationary_bias`.
        directions: The singular values of the part between the groups. With them, the
            nuclear norm of X must be at most the budget where there is one.

    Returns:
        The certificate, and the logarithm of the objective, which is finite where the
        objective underflows.
    """
    columns = program.columns(point)
    value = columns.value + program.ridge_penalty(columns, point)
    if program.multiplier is not None:
        # The unit is one with a penalty.
        value += program.multiplier * _nuclear_norm(program, point, directions)
    if value == 0:
        return Certificate(0.0, 0.0), -math.inf
    if not math.isfinite(value):
        return Certificate(math.nan, math.nan), math.nan
    bound = _Bound.at(program, columns)
    lower, doubt = bound.best()
    # Rounding can push the bound past the objective; what it can do is part of the gap.
    # No objective is negative, so that the gap is at most one.
    gaps = (
        max(value - lower, 0.0) + doubt,
        _aligned_gap(bound, point, directions, value),
    )
    gap = min(*(gap / value for gap in gaps if not math.isnan(gap)), 1.0)
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
    directions = Directions(spectrum.left, spectrum.between, spectrum.right)
    return certify(blocks, point, directions)


def _nuclear_norm(program: BlockProgram, point: Point, directions: Directions) -> float:
    return float(program.extra @ point.spread + directions.values.sum())


def _aligned_gap(
    bound: _Bound, point: Point, directions: Directions, value: float
) -> float:
    """Return objective minus bound at a gradient that is even along all directions."""
    program, columns = bound.program, bound.columns
    used = directions.kept(directions.values > 0)
    residual = columns.balanced(aligned_residual(program, bound.gradient, point, used))
    if not bool(residual.others.isfinite().all()):
        return math.inf
    residual, aligned = _allowed(bound, residual)
    norm, spent = aligned.norm, _nuclear_norm(program, point, used)
    if program.multiplier is None:
        unspent = max((program.budget or 0.0) - spent, 0.0)
    else:
        norm, unspent = program.multiplier, 0.0
    gap = columns.divergence(residual) + norm * unspent
    gap += misalignment(program, aligned.gradient, norm, point, used)
    gap += aligned.mismatched_ridge(point) + aligned.repair(1.0, value)
    return gap + _ULPS * EPS * (norm * spent + value)


def _allowed(bound: _Bound, residual: Blocks) -> tuple[Blocks, _Bound]:
    """Return a residual and its bound, shrunk to the multiplier where it is given."""
    program = bound.program
    gradient = program.adjoint(residual)
    shrunk = replace(bound, gradient=gradient, norm=program.spectral_norm(gradient))
    share = shrunk.largest
    if share == 1:
        return residual, shrunk
    # Mixed with the targets, probabilities stay what they are.
    mixed = Blocks(share * residual.own, share * residual.others)
    return mixed, replace(shrunk, gradient=program.adjoint(mixed))


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
        return value, _ULPS * EPS * terms + self.repair(mixing, value)

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

    def mismatched_ridge(self, point: Point) -> float:
        """Return what a ridge adds to the gap, where the bias does not fit the slope."""
        if not self.program.ridge:
            return 0.0
        ridge = self.program.ridge_in_unit(self.columns)
        mismatch = self.gradient.bias + ridge * point.bias
        return float(mismatch.square().sum()) / (2 * ridge)

    @property
    def largest(self) -> float:
        """The largest mixing weight: a penalty bounds the gradient by its multiplier."""
        multiplier = self.program.multiplier
        if multiplier is None or self.norm <= multiplier:
            return 1.0
        return multiplier / self.norm

    def repair(self, mixing: float, value: float) -> float:
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
        top = math.log(max(self.largest, _LEAST_MIXING))
        # The improvement over the largest weight is of the order of the gap squared.
        if self._slope(top) > -math.sqrt(EPS) * self.columns.value:
            return math.exp(top)
        bottom = top - 1.0
        while self._slope(bottom) < 0 and bottom > math.log(_LEAST_MIXING):
            bottom = max(2 * bottom, math.log(_LEAST_MIXING))
        if self._slope(bottom) < 0:
            return _LEAST_MIXING
        return math.exp(brentq(self._slope, bottom, top))
