r"""The convex program in factors, where its nuclear norm is smooth.

A matrix of rank :math:`r` is written :math:`B = L R^\top`, a spread
:math:`s_g = u_g^2 / (2 (m_g - 1))`. The least value of

.. math::
    \tfrac12 \left(\|L\|_F^2 + \|R\|_F^2 + \|u\|^2\right)

over all factors of a point is its nuclear norm, so a norm ball becomes a sphere and a
norm penalty a square. Where the loss has a least value, a descent in a ball may have
to pass through its inside: there is one more coordinate then, the slack ``t``, so that
such points are on the sphere, with :math:`t^2 / 2` of the budget left. Flat vectors
``y`` hold ``L``, ``R``, ``u``, ``t`` and the bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.directions import Directions

Vector = Float64[Tensor, " n"]

# The least slack to start with, as a share of the squared radius.
_LEAST_SLACK = 1e-4

# Factors whose squares differ by less than this share are balanced enough.
_BALANCED = 1e-3


class Parts(NamedTuple):
    """The parts of a flat vector, as views."""

    left: Float64[Tensor, "G r"]
    right: Float64[Tensor, "G r"]
    spread: Float64[Tensor, " several"]
    slack: Float64[Tensor, " one"]
    bias: Float64[Tensor, " biased"]


@dataclass(frozen=True, eq=False)
class FactorSpace:
    """Factors of one rank, for one program.

    Attributes:
        program: The program.
        rank: The number of columns of both factors.
    """

    program: BlockProgram
    rank: int

    @cached_property
    def several(self) -> Tensor:
        """Indices of the groups of more than one class: the others have no spread."""
        return torch.nonzero(self.program.sizes > 1).flatten()

    @property
    def biased(self) -> int:
        """The number of bias coordinates."""
        return 0 if self.program.ridge is None else self.program.num_groups

    @property
    def radius2(self) -> float | None:
        """The squared norm of the factors in a norm ball; ``None`` for a penalty."""
        budget = self.program.budget
        return None if budget is None else 2 * budget

    @property
    def sizes(self) -> list[int]:
        """The lengths of the parts of a flat vector."""
        factor = self.program.num_groups * self.rank
        slack = self.radius2 is not None and self.program.saturates
        return [factor, factor, len(self.several), int(slack), self.biased]

    def split(self, y: Vector) -> Parts:
        """Return the parts of a flat vector, as views."""
        left, right, *rest = torch.split(y, self.sizes)
        shape = (self.program.num_groups, self.rank)
        return Parts(left.view(shape), right.view(shape), *rest)

    def join(self, parts: Parts) -> Vector:
        """Return the flat vector of some parts."""
        return torch.cat([part.reshape(-1) for part in parts])

    @cached_property
    def is_factor(self) -> Vector:
        """Ones for the factors and zeros for the bias."""
        mask = torch.ones(sum(self.sizes)).to(self.program.sizes)
        mask[len(mask) - self.biased :] = 0
        return mask

    def project(self, y: Vector) -> Vector:
        """Return the factors without what the loss does not see.

        A part of X that only costs norm is zero at every optimum; kept, it would be a
        direction of almost no curvature.
        """
        left, right, spread, slack, bias = self.split(y)
        left = _without(left, self.program.common)
        right = _without(right, self.program.constant)
        bias = _without(bias, self.program.common if self.biased else None)
        return self.join(Parts(left, right, spread, slack, bias))

    def point(self, y: Vector) -> Point:
        """Return the point that factors stand for."""
        left, right, spread, _, bias = self.split(y)
        extra = self.program.extra[self.several]
        return self._point(left @ right.T, spread.square() / (2 * extra), bias)

    def tangent(self, y: Vector, v: Vector) -> Point:
        """Return the derivative of :meth:`point` along a direction."""
        at, along = self.split(y), self.split(v)
        between = torch.addmm(along.left @ at.right.T, at.left, along.right.T)
        extra = self.program.extra[self.several]
        return self._point(between, at.spread * along.spread / extra, along.bias)

    def pull(self, y: Vector, gradient: Point) -> Vector:
        """Return the gradient in the factors, the adjoint of :meth:`tangent`."""
        left, right, spread, slack, _ = self.split(y)
        between, own = gradient.between, gradient.spread[self.several] * spread
        none, bias = torch.zeros_like(slack), gradient.bias[: self.biased]
        return self.join(Parts(between @ right, between.T @ left, own, none, bias))

    def factors(
        self,
        directions: Directions,
        spread: Float64[Tensor, " G"],
        bias: Float64[Tensor, " G"],
    ) -> Vector:
        """Return balanced factors: those of the least norm.

        Args:
            directions: As many as the rank of the space.
            spread: The spreads.
            bias: The bias.
        """
        root = directions.values.sqrt()
        wide = 2 * self.program.extra[self.several] * spread[self.several]
        left, right = directions.left * root, directions.right * root
        radius2 = self.radius2 or 0.0
        spent = 2 * float(directions.values.sum()) + float(wide.sum())
        # With a slack of exactly zero, the inside of a ball is out of sight.
        slack = max(radius2 - spent, _LEAST_SLACK * radius2) ** 0.5
        slacks = root.new_full((self.sizes[3],), slack)
        return self.join(Parts(left, right, wide.sqrt(), slacks, bias[: self.biased]))

    def balanced(self, y: Vector) -> Vector:
        """Return the least factors of the same point; what is saved goes into the slack.

        Unequal factors are a curved valley, along which Newton's method is slow.
        """
        left, right, spread, slack, bias = self.split(y)
        first, second = left.T @ left, right.T @ right
        if not float((first - second).norm()) > _BALANCED * float(first.norm()):
            return y  # or not finite: then the step will be refused
        directions = Directions.of_product(left, right)
        root = directions.values.sqrt()
        saved = (first + second).diagonal().sum() - 2 * directions.values.sum()
        slack = (slack.square() + saved.clamp(min=0)).sqrt()
        left, right = directions.left * root, directions.right * root
        return self.project(self.join(Parts(left, right, spread, slack, bias)))

    def retract(self, y: Vector) -> Vector:
        """Return the factors balanced and scaled to the sphere; the bias stays."""
        y = self.balanced(y)
        if self.radius2 is None:
            return y
        factors = self.is_factor * y
        # Without any factors left, the result is not a number, and refused.
        scale = math.sqrt(self.radius2) / (float(factors.norm()) or math.nan)
        return y + (scale - 1) * factors

    def _point(self, between: Tensor, spread: Tensor, bias: Tensor) -> Point:
        full = torch.zeros_like(self.program.sizes)
        full_bias = bias if self.biased else torch.zeros_like(full)
        return Point(full.index_copy(0, self.several, spread), between, full_bias)


def _without(
    values: Float64[Tensor, "*columns"], vector: Float64[Tensor, " G"] | None
) -> Float64[Tensor, "*columns"]:
    """Remove the component along a unit vector from every column."""
    if vector is None:
        return values
    along: Tensor = torch.tensordot(vector, vector @ values, dims=0)
    return values - along
