r"""The convex program in group coordinates: a handful of numbers instead of a matrix.

Classes that are alike in every respect are interchangeable, and the program is convex,
so an optimal :math:`X = Z \operatorname{diag}(\delta)` over :math:`G` groups of sizes
:math:`m_g` is (see :class:`~layerpeel.program.spectrum.BlockSpectrum`)

.. math::
    X = \sum_g s_g \left(I_g - \tfrac{1}{m_g} J_g\right) + U B U^\top , \qquad
    \|X\|_* = \sum_g (m_g - 1) |s_g| + \|B\|_* ,

with :math:`U` the normalised group indicators: :math:`G + G^2` numbers, whatever
:math:`K` is. Without equal classes, :math:`G = K` and :math:`B = X`: the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.convex.columns import (
    Blocks,
    Columns,
    SoftmaxColumns,
    SquaredColumns,
)

Groups = tuple[tuple[int, ...], ...]

# In units of a loss of 1e-300 a ridge is infinite; one that is this large holds the bias
# at zero as well, and its square does not overflow.
_LOG_STIFFEST = math.log(1e100)

# The least curvature in a coordinate of the bias, as a share of the largest and at all.
_LEAST_SHARE = 1e-8
_LEAST_WEIGHT = 1e-300


class Point(NamedTuple):
    """Coordinates of a group-symmetric X and bias; of a gradient, likewise.

    The bias is in units of the normalised group indicators, so that the inner product of
    points is Euclidean up to the factors ``m_g - 1`` of the spreads.
    """

    spread: Float64[Tensor, " G"]
    between: Float64[Tensor, "G G"]
    bias: Float64[Tensor, " G"]


@dataclass(frozen=True, eq=False)
class BlockProgram:
    r"""A class-level program with its classes grouped.

    Attributes:
        groups: The class indices of each group.
        sizes: Classes per group :math:`m_g`, with shape ``(G,)``.
        log_weights: Logarithm of the loss weight of one class.
        feature_weights: Column weights :math:`\delta`.
        scale: Factor on the logit of a class (1 for the squared error).
        offset: Number added to the logit of a class (0 for the squared error).
        margin: Divisor of the logits of a sample of a class (1 for the squared error).
        targets: Target of one class of group ``h`` other than the own in a column of
            group ``g``, with shape ``(G, G)``; ``None`` for the squared error.
        budget: :math:`\tau`, or ``None``.
        multiplier: :math:`\mu`, or ``None``.
        ridge: :math:`\lambda_b`; 0 for a free bias, ``None`` for no bias.
    """

    groups: Groups
    sizes: Float64[Tensor, " G"]
    log_weights: Float64[Tensor, " G"]
    feature_weights: Float64[Tensor, " G"]
    scale: Float64[Tensor, " G"]
    offset: Float64[Tensor, " G"]
    margin: Float64[Tensor, " G"]
    targets: Float64[Tensor, "G G"] | None
    budget: float | None
    multiplier: float | None
    ridge: float | None

    @classmethod
    def of(cls, program: ClassLevel, groups: Groups) -> BlockProgram:
        """Group a program; the classes of a group must be alike."""
        first = torch.tensor([classes[0] for classes in groups])
        weights = program.weights[first]
        ones = torch.ones_like(weights)
        scale, offset, margin, targets = ones, 0 * ones, ones, None
        if isinstance(program.loss, SoftmaxLoss):
            loss = program.loss
            scale, offset = loss.scale[first], loss.offset[first]
            margin = loss.margin[first]
            targets = torch.outer(loss.common[first], loss.smoothing[first])
        return cls(
            groups,
            torch.tensor([len(classes) for classes in groups]).to(weights),
            weights.log(),
            program.feature_weights[first],
            scale,
            offset,
            margin,
            targets,
            program.regulariser.budget,
            program.regulariser.multiplier,
            program.ridge,
        )

    def to(self, device: torch.device) -> BlockProgram:
        """Return the program with its tensors on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def num_groups(self) -> int:
        """The number of groups :math:`G`."""
        return len(self.groups)

    @property
    def extra(self) -> Float64[Tensor, " G"]:
        """Multiplicity of the spreads, :math:`m_g - 1`."""
        return self.sizes - 1

    @cached_property
    def saturates(self) -> bool:
        """Whether the loss attains its least value, so that a budget may not bind."""
        return self.targets is None or bool((self.targets > 0).any())

    @cached_property
    def common(self) -> Float64[Tensor, " G"] | None:
        """What the softmax does not see of a column of X or of the bias, of norm one."""
        if self.targets is None:
            return None
        vector = self.sizes.sqrt() / self.scale
        return torch.nn.functional.normalize(vector, dim=0)

    @cached_property
    def constant(self) -> Float64[Tensor, " G"] | None:
        """What a free bias makes up for in a row of X, of norm one."""
        if self.ridge != 0:
            return None
        vector = self.sizes.sqrt() * self.feature_weights
        return torch.nn.functional.normalize(vector, dim=0)

    @cached_property
    def entry_scale(self) -> Float64[Tensor, "G G"]:
        """What a logit moves by when an entry of X does, with shape ``(G, G)``."""
        return self.scale[:, None] / (self.margin * self.feature_weights)

    @cached_property
    def _indicators(self) -> Float64[Tensor, "G G"]:
        """Products of the norms of the group indicators."""
        root = self.sizes.sqrt()
        return root[:, None] * root

    @cached_property
    def _spreading(self) -> Float64[Tensor, "G G"]:
        """What a logit moves by when a coordinate between groups does."""
        return self.entry_scale / self._indicators

    @cached_property
    def _gathering(self) -> Float64[Tensor, "G G"]:
        """The same, summed over all logits that move alike."""
        return self.entry_scale * self._indicators

    def columns(self, point: Point) -> Columns:
        """Evaluate the loss at a point."""
        logits = self._forward(point)
        if self.targets is None:
            return SquaredColumns.at(logits, self.log_weights, self.sizes)
        shifted = Blocks(logits.own + self.offset, logits.others + self.offset[:, None])
        return SoftmaxColumns.at(
            shifted,
            self.log_weights,
            self.sizes,
            self.targets,
            in_own_unit=self.budget is not None,
        )

    def gradient(self, columns: Columns) -> Point:
        """Return the gradient of the loss; its spreads are singular values."""
        return self.adjoint(columns.residual)

    def residual(self, gradient: Point) -> Blocks:
        """Return the residual of a gradient; its columns sum to zero, rounding aside.

        The inverse of :meth:`adjoint`, whose bias follows from the rest.
        """
        towards = self.entry_scale.diagonal()
        others = gradient.between / self._gathering
        same = (gradient.between.diagonal() - gradient.spread) / (self.sizes * towards)
        others.diagonal().copy_(same)
        return Blocks(same + gradient.spread / towards, others)

    def curvature(self, columns: Columns, direction: Point) -> Point:
        """Return the Hessian of the loss times a direction."""
        return self.adjoint(columns.curvature(self._forward(direction)))

    def entry_weights(self, columns: Columns) -> Float64[Tensor, "G G"]:
        """Return the curvature of the loss along each entry of the part between groups."""
        own, others = columns.curvature_diagonal
        mean = (own + self.extra * others.diagonal()) / self.sizes
        weights = others * self.entry_scale.square()
        weights.diagonal().copy_(mean * self.entry_scale.diagonal().square())
        return weights

    def bias_weights(self, columns: Columns) -> Float64[Tensor, " G"]:
        """Return the curvature of the objective along each coordinate of the bias."""
        stretch = self.feature_weights.square() * self.sizes
        weights = self.entry_weights(columns) @ stretch + self.ridge_in_unit(columns)
        # A class so rare that its bias does not matter must not divide by zero.
        return weights.clamp(min=_LEAST_SHARE * float(weights.max()) + _LEAST_WEIGHT)

    def spectral_norm(self, gradient: Point) -> float:
        """Return the largest singular value of a gradient, by an SVD."""
        between = torch.linalg.matrix_norm(gradient.between, 2)
        spreads = (gradient.spread.abs() * (self.extra > 0)).max()
        return float(torch.maximum(between, spreads))

    def ridge_in_unit(self, columns: Columns) -> float:
        """Return the ridge of the bias in the columns' unit, at most 1e100."""
        if not self.ridge:
            return 0.0
        log_ridge = math.log(self.ridge) - columns.log_scale
        return math.exp(min(log_ridge, _LOG_STIFFEST))

    def holds_bias(self, columns: Columns) -> bool:
        """Whether the ridge is so large in the unit that the bias is zero."""
        if not self.ridge:
            return False
        return math.log(self.ridge) - columns.log_scale >= _LOG_STIFFEST

    def ridge_penalty(self, columns: Columns, point: Point) -> float:
        """Return the penalty of the bias, in the columns' unit."""
        square = float(point.bias.square().sum())
        return 0.5 * self.ridge_in_unit(columns) * square

    def _forward(self, point: Point) -> Blocks:
        """Return the logits of a point, without offsets; linear."""
        spread = point.spread * self.entry_scale.diagonal()
        bias = point.bias * self.scale / self.sizes.sqrt()
        others = point.between * self._spreading
        if self.ridge is not None:
            others = others + bias[:, None] / self.margin
        others.diagonal().sub_(spread / self.sizes)
        return Blocks(others.diagonal() + spread, others)

    def adjoint(self, residual: Blocks) -> Point:
        """Return the gradient of a residual, by the multiplicities of classes."""
        own, same = residual.own, residual.others.diagonal()
        towards = self.entry_scale.diagonal()
        between = residual.others * self._gathering
        between.diagonal().copy_((own + self.extra * same) * towards)
        bias = between @ (self.feature_weights * self.sizes.sqrt())
        return Point((own - same) * towards, between, bias)
