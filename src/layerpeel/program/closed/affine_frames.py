r"""Squared error with a bias: frames of the targets that the bias leaves over.

*Free bias*, :math:`\pi_k = \rho \, \delta_k^2`: any counts with decay per sample, or
equal counts. The best bias is the mean residual, and projects the unit vector
:math:`u = \delta / \|\delta\|` out of the columns. Since
:math:`\sigma_i(X) \geq \sigma_i(X (I - u u^\top))`, what is left is

.. math::
    \min_X \; \frac{\rho}{2} \left\|X - \operatorname{diag}(\delta) (I - u u^\top)
    \right\|_F^2 + \frac{M + 1}{2} \, c \sum_i \sigma_i(X)^{2/(M+1)} ,

and by von Neumann's trace inequality :math:`X` takes the singular vectors of the
target, at any rank. Its singular values are shrunk one by one, as in
:mod:`layerpeel.program.closed.shrinkage`; balanced, they are all equal and the
solution is a simplex frame.

*Ridge bias*, all classes alike. The best bias :math:`b = \beta 1` weakens the mean
direction :math:`1 / \sqrt{K}` by the factor :math:`\lambda_b / (\Pi + \lambda_b)`, with
:math:`\Pi = \sum_k \pi_k`, and leaves the others. In a basis with that direction, the
program is the one without a bias and with different weights, and the proof of
:mod:`layerpeel.program.closed.orthogonal_frames` holds as it stands, for every depth
and width. The mean direction collapses first: the solution is an exact simplex frame on
an interval of :math:`\lambda_b`, and turns into the orthogonal frame above it.

References:
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data (Dang et
    | al., 2023), https://arxiv.org/abs/2301.00437: balanced classes and a free bias
    | The Exploration of Neural Collapse under Imbalanced Data (Liu, 2024),
    | https://arxiv.org/abs/2411.17278: a free bias for any counts, by the singular
    | values of the centred target
    | On the Optimization Landscape of Neural Collapse under MSE Loss: Global Optimality
    | with Unconstrained Features (Zhou et al., 2022), https://arxiv.org/abs/2203.01238:
    | balanced classes, one layer
    | The role of class encoding in neural collapse (Massion et al., 2026),
    | https://arxiv.org/abs/2606.00344: from the simplex to the orthogonal frame as the
    | ridge grows
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.geometry import simplex_etf
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.closed._reach import (
    checked_regulariser,
    common_value,
    require,
    squared_loss,
)
from layerpeel.program.closed.shrinkage import Shrinkage, ShrinkageProgram
from layerpeel.program.counts import count_groups
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Solution, Status
from layerpeel.program.spectrum import BlockSpectrum


def solve_affine_frames(program: ClassLevel, gap_tol: float) -> Solution:
    r"""Solve a squared-error program with a bias, for any depth.

    *Free bias*, :math:`\lambda_b = 0`, with :math:`\pi` proportional to
    :math:`\delta^2`: :math:`b = \pi`, the class frequencies. With
    :math:`U S V^\top` the singular value decomposition of
    :math:`\operatorname{diag}(\delta) (I - u u^\top)`, :math:`u = \delta / \|\delta\|`,

    .. math::
        Z \operatorname{diag}(\delta) = U \operatorname{diag}(s_i z_i) V^\top .

    *Ridge bias*, with all classes alike:

    .. math::
        Z = z_1 (I - \tfrac{1}{K} J) + z_0 \tfrac{1}{K} J , \qquad
        b = \frac{1 - z_0}{K (1 + \lambda_b)} 1 .

    The fractions :math:`z` follow the equation of
    :func:`~layerpeel.program.closed.orthogonal_frames.solve_orthogonal_frames`. For one
    layer and a multiplier :math:`c`, with
    :math:`c_b = K c \delta` (:math:`K \sqrt{n \lambda_W \lambda_H}` for decay per
    sample), :math:`z_1 = 1 - c_b`, and :math:`z_0 = 0` as long as
    :math:`\lambda_b \leq c_b / (1 - c_b)`.

    A width below the rank keeps the directions of largest gain; of equal directions the
    first, although any projection of them would be as good.

    Args:
        program: The program; free features, and weights as above.
        gap_tol: Not needed by a formula.

    Returns:
        The solution, with status ``CLOSED_FORM``. Only with a ridge and within a budget
        that has to be filled in fewer directions than it would take is the status
        ``STATIONARY``: then the lower bound is that of the full width.
        ``stats["rank"]`` is the rank of the logits.

    Raises:
        ValueError: If the program is not of this form.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
        | On the Optimization Landscape of Neural Collapse under MSE Loss: Global
        | Optimality with Unconstrained Features (Zhou et al., 2022),
        | https://arxiv.org/abs/2203.01238
    """
    squared_loss(program)
    require(not program.nonnegative, "features of any sign", "nonnegative features")
    require(program.ridge is not None, "a bias", "none")
    regulariser = checked_regulariser(program)
    directions = _with_ridge(program) if program.ridge else _without_ridge(program)
    shrunk = directions.shrink(program)
    spectrum = directions.spectrum(shrunk.fractions)
    return Solution(
        Status.CLOSED_FORM if shrunk.proved else Status.STATIONARY,
        shrunk.certificate,
        SpectralFactors(
            spectrum, program.feature_weights, regulariser.balance, regulariser.depth
        ),
        _bias(program, shrunk),
        {"rank": int(shrunk.kept.sum())},
    )


@dataclass(frozen=True, eq=False)
class _Directions:
    """Singular vectors of the target: the spread of each group, then those between.

    Attributes:
        groups: The class indices of each group of equal classes.
        weights: Loss weight of every direction, the spreads first.
        targets: Singular value of every direction, in the same order.
        left: Left singular vectors between the groups, in units of their indicators.
        right: Right singular vectors between the groups.
    """

    groups: tuple[tuple[int, ...], ...]
    weights: Float64[Tensor, " n"]
    targets: Float64[Tensor, " n"]
    left: Float64[Tensor, "G r"]
    right: Float64[Tensor, "G r"]

    def shrink(self, program: ClassLevel) -> Shrinkage:
        n = len(self.targets)
        width = n if program.width is None else program.width
        scalars = ShrinkageProgram(self.weights, self.targets, width)
        return scalars.solve(program.regulariser)

    def spectrum(self, fractions: Float64[Tensor, " n"]) -> BlockSpectrum:
        """Return the logits, group-symmetric unless the width cuts through a group."""
        values = self.targets * fractions
        sizes = [len(classes) - 1 for classes in self.groups]
        *spreads, between = torch.split(values, [*sizes, self.left.shape[1]])
        if any(len(part) and part.min() < part.max() for part in spreads):
            return self._singletons(values)
        within = torch.stack(
            [part.max() if len(part) else part.sum() for part in spreads]
        )
        kept = between > 0
        return BlockSpectrum(
            self.groups, within, between[kept], self.left[:, kept], self.right[:, kept]
        )

    def _singletons(self, values: Float64[Tensor, " n"]) -> BlockSpectrum:
        """Return the logits with every class a group of its own."""
        spreads = [_spread_basis(classes, self._size) for classes in self.groups]
        left = torch.cat([*spreads, self._expanded(self.left)], dim=1)
        right = torch.cat([*spreads, self._expanded(self.right)], dim=1)
        kept = values > 0
        classes = tuple((k,) for k in range(self._size))
        zeros = values.new_zeros(self._size)
        return BlockSpectrum(
            classes, zeros, values[kept], left[:, kept], right[:, kept]
        )

    @property
    def _size(self) -> int:
        return sum(map(len, self.groups))

    def _expanded(self, vectors: Float64[Tensor, "G r"]) -> Float64[Tensor, "K r"]:
        rows = vectors.new_empty(self._size, vectors.shape[1])
        for classes, row in zip(self.groups, vectors, strict=True):
            rows[list(classes)] = row / len(classes) ** 0.5
        return rows


def _spread_basis(
    classes: tuple[int, ...], num_classes: int
) -> Float64[Tensor, "K columns"]:
    """Return an orthonormal basis of the vectors on a group that sum to zero."""
    size = len(classes)
    basis = torch.zeros(num_classes, size - 1, dtype=torch.float64)
    if size > 1:
        # A unit simplex frame of m rows is sqrt(m / (m-1)) times such a basis.
        basis[list(classes)] = simplex_etf(size, size - 1) * ((size - 1) / size) ** 0.5
    return basis


def _with_ridge(program: ClassLevel) -> _Directions:
    """Return the directions of equal classes; the mean one is weakened by the bias."""
    assert program.ridge is not None
    K = program.num_classes
    weight = common_value("weight (with a ridge)", program.weights)
    delta = common_value("feature weight (with a ridge)", program.feature_weights)
    weakened = program.ridge / (K * weight + program.ridge)
    weights = torch.full((K,), weight, dtype=torch.float64)
    weights[-1] *= weakened
    one = torch.ones(1, 1, dtype=torch.float64)
    targets = torch.full_like(weights, delta)
    return _Directions((tuple(range(K)),), weights, targets, one, one)


def _without_ridge(program: ClassLevel) -> _Directions:
    """Return the singular vectors of the target that a free bias leaves over."""
    delta = program.feature_weights
    density = common_value(
        "ratio of weight to squared feature weight (with a free bias)",
        program.weights / delta.square(),
    )
    grouped = count_groups(delta.tolist())
    values = delta.new_tensor([group.count for group in grouped])
    sizes = delta.new_tensor([len(group.classes) for group in grouped])
    mean = sizes.sqrt() * values
    mean = mean / mean.norm()
    left, between, right = torch.linalg.svd(
        torch.diag(values) - torch.outer(values * mean, mean)
    )
    # The last singular value is that of the mean direction, which is zero.
    within = values.repeat_interleave((sizes - 1).long())
    targets = torch.cat([within, between[:-1]])
    groups = tuple(group.classes for group in grouped)
    weights = density * targets.square()
    return _Directions(groups, weights, targets, left[:, :-1], right[:-1].T)


def _bias(program: ClassLevel, shrunk: Shrinkage) -> Float64[Tensor, " K"]:
    """Return the mean residual, shortened by the ridge."""
    total = float(program.weights.sum())
    if not program.ridge:
        return program.weights / total
    # The mean direction comes last.
    constant = total / (total + program.ridge) * shrunk.residuals[-1]
    return constant.expand(program.num_classes) / program.num_classes
