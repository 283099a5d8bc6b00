r"""A lower bound of second order in the error of a solution.

For every :math:`Q` whose columns are probabilities, with :math:`G = \operatorname{diag}
(\gamma) (Q - T) \operatorname{diag}(\pi / (m \delta))`, objective minus bound is a sum of
terms that are never negative,

.. math::
    \sum_k \pi_k \mathrm{KL}(q_k \| p_k) + \sum_i s_i \left( \|G\|_2 + u_i^\top G v_i
    \right) + \|G\|_2 \left( \tau - \|X\|_* \right)
    + \tfrac{1}{2 \lambda_b} \left\| \gamma \odot (Q - T) \tfrac{\pi}{m} + \lambda_b b
    \right\|^2 ,

with :math:`s_i, u_i, v_i` the singular triples of :math:`X` and, with a penalty,
:math:`\mu` for :math:`\|G\|_2` and no third term. At :math:`Q = P` the second sum is of
first order in the error of the logits, and the rounding of logits of size :math:`a`
alone makes it :math:`\varepsilon a^2`. So :math:`Q` is taken where that sum is zero: a
gradient at the solution has the multiplier :math:`\mu` as its singular value along every
direction in use, :math:`G = -\mu \sum_i u_i v_i^\top + R`, with :math:`R` across all of
them and no larger than :math:`\mu`. What is left is the divergence, of second order.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | convex form
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.columns import Blocks
from layerpeel.program.convex.directions import Directions


def aligned_residual(
    program: BlockProgram, gradient: Point, point: Point, directions: Directions
) -> Blocks:
    """Return a residual near that of a gradient, with the multiplier along directions.

    Args:
        program: The program.
        gradient: The gradient of the loss at the point.
        point: The point.
        directions: The singular values of its part between the groups, without zeros.
    """
    multiplier = _multiplier(program, gradient, point, directions)
    rest = _within(_across(program, directions, gradient.between), multiplier)
    used = (directions.left * multiplier) @ directions.right.T
    between = _visible(program, rest - used)
    idle = gradient.spread.clamp(-multiplier, multiplier)
    spread = torch.where(point.spread > 0, -multiplier, idle)
    return program.residual(Point(spread, between, gradient.bias))


def misalignment(
    program: BlockProgram,
    gradient: Point,
    norm: float,
    point: Point,
    directions: Directions,
) -> float:
    r"""Return :math:`\sum_i s_i (\|G\|_2 + u_i^\top G v_i)`, term by term.

    Args:
        program: The program.
        gradient: The gradient :math:`G`.
        norm: A bound on its spectral norm.
        point: The point.
        directions: The singular values of its part between the groups.
    """
    gains = (directions.left * (gradient.between @ directions.right)).sum(dim=0)
    spread = program.extra * point.spread
    between = directions.values @ (norm + gains).clamp(min=0)
    return float(between + spread @ (norm + gradient.spread).clamp(min=0))


def _multiplier(
    program: BlockProgram, gradient: Point, point: Point, directions: Directions
) -> float:
    """Return the multiplier of the norm; with a budget, the mean gain of a unit of it."""
    if program.multiplier is not None:
        return program.multiplier
    gains = -(directions.left * (gradient.between @ directions.right)).sum(dim=0)
    spread = program.extra * point.spread
    norm = spread.sum() + directions.values.sum()
    gain = spread @ -gradient.spread + directions.values @ gains
    return max(float(gain / norm), 0.0) if float(norm) > 0 else 0.0


def _across(
    program: BlockProgram, used: Directions, gradient: Float64[Tensor, "G G"]
) -> Float64[Tensor, "G G"]:
    """Return the part of a gradient that no direction in use touches."""
    rest = gradient - used.left @ (used.left.T @ gradient)
    return _visible(program, rest - (rest @ used.right) @ used.right.T)


def _within(matrix: Float64[Tensor, "G G"], norm: float) -> Float64[Tensor, "G G"]:
    """Return a matrix scaled down to a spectral norm."""
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    return matrix * (norm / largest) if largest > norm else matrix


def _visible(
    program: BlockProgram, matrix: Float64[Tensor, "G G"]
) -> Float64[Tensor, "G G"]:
    """Remove what probabilities that sum to one, and a free bias, leave no part of."""
    if program.common is not None:
        matrix = matrix - torch.outer(program.common, program.common @ matrix)
    if program.constant is not None:
        matrix = matrix - torch.outer(matrix @ program.constant, program.constant)
    return matrix
