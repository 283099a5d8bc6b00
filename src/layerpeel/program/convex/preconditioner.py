r"""An approximate inverse of the Hessian in the factors: a diagonal and a coupling.

The logit of the own class bends the softmax of a column as much as all others together,
and moves with row :math:`g` of *both* factors, :math:`\delta B_{gg} = \delta\ell_g \cdot
r_g + \ell_g \cdot \delta r_g`. A diagonal would miss that. With the rest of the curvature
as a diagonal :math:`D_g`, every group is left with a rank-one term, inverted by the
formula of Sherman and Morrison:

.. math::
    \left(D_g + c_g \, q_g q_g^\top\right)^{-1} , \qquad q_g = (r_g, \ell_g) .
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.convex.factor_space import FactorSpace, Parts, Vector
from layerpeel.program.convex.local import Local

# Keeps divisions defined where every curvature is zero.
_LEAST_SHIFT = 1e-300

# Entries with less curvature than this share of the mean are treated as having it.
_LEAST_SHARE = 1e-8


class _Rows(NamedTuple):
    """One vector for each group: its rows of both factors."""

    left: Float64[Tensor, "G r"]
    right: Float64[Tensor, "G r"]

    def __matmul__(self, other: tuple[Tensor, ...]) -> Float64[Tensor, " G"]:
        """Return the inner product of every group."""
        left, right = other[:2]
        return (self.left * left).sum(dim=1) + (self.right * right).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Preconditioner:
    r"""The approximate inverse at some factors.

    Attributes:
        space: The factor space.
        diagonal: The diagonal, without the own logits.
        coupled: :math:`q`.
        scaled: :math:`D^{-1} q`.
        strength: :math:`c / (1 + c \, q^\top D^{-1} q)`, with shape ``(G,)``.
    """

    space: FactorSpace
    diagonal: Vector
    coupled: _Rows
    scaled: _Rows
    strength: Float64[Tensor, " G"]

    @classmethod
    def at(cls, local: Local) -> Preconditioner:
        """Approximate the Hessian at some factors."""
        space, parts = local.space, local.space.split(local.y)
        weight = space.program.entry_weights(local.columns)
        own = weight.diagonal().clone()
        weight.diagonal().zero_()
        diagonal = _diagonal(local, weight, own)
        across = space.split(diagonal)
        coupled = _Rows(parts.right, parts.left)
        scaled = _Rows(coupled.left / across.left, coupled.right / across.right)
        strength = own / (1 + own * (coupled @ scaled))
        return cls(space, diagonal, coupled, scaled, strength)

    def __call__(self, v: Vector) -> Vector:
        """Return the approximate inverse times a direction."""
        parts = self.space.split(v / self.diagonal)
        excess = (self.strength * (self.coupled @ parts))[:, None]
        parts.left.sub_(excess * self.scaled.left)
        parts.right.sub_(excess * self.scaled.right)
        return self.space.project(self.space.join(parts))


def _diagonal(
    local: Local, weight: Float64[Tensor, "G G"], own: Float64[Tensor, " G"]
) -> Vector:
    """Return the diagonal from the curvature along every entry between the groups."""
    space, program = local.space, local.space.program
    left, right, spread, slack, _ = space.split(local.y)
    rows, columns = weight @ right.square(), weight.T @ left.square()
    # Inside a ball the multiplier is zero, and some entries have no curvature at all; on
    # the way there it is negative, and of the size of what it does.
    least = _LEAST_SHARE * float(rows.sum() + columns.sum()) / (rows.numel() + 1)
    shift = max(abs(local.multiplier), least, _LEAST_SHIFT)
    within = own[space.several] * spread.square() / program.extra[space.several]
    bias = program.bias_weights(local.columns)
    return space.join(
        Parts(
            rows + shift,
            columns + shift,
            within + shift,
            torch.full_like(slack, shift),
            bias[: space.biased],
        )
    )
