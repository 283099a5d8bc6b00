"""Directions that the factors lack, and that would pay.

At a stationary point, the directions in use have the multiplier as their singular value
of the gradient. One outside of them that has more would lower the objective; without
any, the point is optimal.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace, Vector
from layerpeel.program.convex.proof import Proof
from layerpeel.program.convex.start import floor_of


def with_missing(
    space: FactorSpace, proof: Proof, excess: float
) -> tuple[FactorSpace, Vector] | None:
    """Return factors with the directions that would pay, or ``None`` without any.

    Args:
        space: The factors so far.
        proof: The point, stationary in the directions that it uses.
        excess: The relative excess over the multiplier that tells a missing direction
            from rounding.
    """
    program = space.program
    gradient = program.gradient(program.columns(proof.point))
    price = (1 + excess) * _multiplier(program, proof, gradient)
    price += 16 * EPS * float(gradient.between.norm())
    new = _outside(proof.directions, gradient.between)
    new = new.kept(new.values > price)
    spread = proof.point.spread
    idle = (spread == 0) & (program.extra > 0) & (-gradient.spread > price)
    if len(new.values) == 0 and not bool(idle.any()):
        return None
    floor = floor_of(program, proof.point, proof.directions)
    joined = _joined(proof.directions, new, floor)
    wider = FactorSpace(program, len(joined.values))
    spread = torch.where(idle, floor, spread)
    return wider, wider.factors(joined, spread, proof.point.bias)


def _multiplier(program: BlockProgram, proof: Proof, gradient: Point) -> float:
    """Return the multiplier of the norm; with a budget, the one that fits best."""
    if program.multiplier is not None:
        return program.multiplier
    point = proof.point
    gain = -(gradient.between * point.between).sum()
    gain = gain - program.extra @ (gradient.spread * point.spread)
    norm = program.extra @ point.spread + proof.directions.values.sum()
    return max(float(gain / norm), 0.0)


def _outside(used: Directions, gradient: Float64[Tensor, "G G"]) -> Directions:
    """Decompose the part of a gradient that no direction in use touches."""
    rest = gradient - used.left @ (used.left.T @ gradient)
    return Directions.of(rest - (rest @ used.right) @ used.right.T)


def _joined(used: Directions, new: Directions, floor: float) -> Directions:
    """Return both, the new ones against their gradient and of the size of the floor."""
    values = torch.full_like(new.values, floor)
    joined = Directions(
        torch.cat([used.left, -new.left], dim=1),
        torch.cat([used.values, values]),
        torch.cat([used.right, new.right], dim=1),
    )
    return joined.kept(torch.arange(min(len(joined.values), len(joined.left))))
