"""A point of the convex program with exact zeros, and what is proved about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import ABSENT_DIRECTION
from layerpeel.program.convex.bias import centred_bias, stationary_bias
from layerpeel.program.convex.blocks import BlockProgram, Groups, Point
from layerpeel.program.convex.certificate import certify
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace, Vector
from layerpeel.program.solution import Certificate
from layerpeel.program.spectrum import BlockSpectrum


@dataclass(frozen=True, eq=False)
class Proof:
    """A point with its bound.

    Attributes:
        point: The point.
        directions: The singular values between the groups, without zeros.
        certificate: The objective and the bound.
        log_objective: The logarithm of the objective.
    """

    point: Point
    directions: Directions
    certificate: Certificate
    log_objective: float

    @classmethod
    def at(
        cls,
        program: BlockProgram,
        directions: Directions,
        spread: Float64[Tensor, " G"],
        bias: Float64[Tensor, " G"],
    ) -> Proof:
        """Prove what can be proved, with the best bias where it is free."""
        point = Point(spread, directions.matrix, bias)
        if program.ridge == 0:
            point = stationary_bias(program, point)
        elif program.ridge is not None:
            point = centred_bias(program, point)
        return cls(point, directions, *certify(program, point, directions))

    @classmethod
    def of(cls, program: BlockProgram, space: FactorSpace, y: Vector) -> Proof:
        """Prove what can be proved of factors, rounded to exact zeros and the budget.

        Args:
            program: The program, which may have a bias where that of the space has none.
            space: The factor space.
            y: The factors.
        """
        point = space.point(y)
        directions = Directions.of(point.between)
        spread = point.spread * (program.extra > 0)
        least = ABSENT_DIRECTION * torch.maximum(directions.values[0], spread.max())
        left, values, right = directions.kept(directions.values > least)
        spread = torch.where(spread > least, spread, 0.0)
        scale = _within_budget(program, float(program.extra @ spread + values.sum()))
        kept = Directions(left, scale * values, right)
        held = program.holds_bias(program.columns(point))
        return cls.at(program, kept, scale * spread, point.bias * (not held))

    def spectrum(self, groups: Groups) -> BlockSpectrum:
        """Return the singular values of X."""
        left, values, right = (part.cpu() for part in self.directions)
        return BlockSpectrum(groups, self.point.spread.cpu(), values, left, right)

    def bias(self, groups: Groups) -> Float64[Tensor, " K"]:
        """Return the bias of every class."""
        full = torch.zeros(sum(map(len, groups)), dtype=torch.float64)
        for classes, value in zip(groups, self.point.bias.tolist(), strict=True):
            full[list(classes)] = value / math.sqrt(len(classes))
        return full


def _within_budget(program: BlockProgram, norm: float) -> float:
    """Return the factor that brings a norm to the budget, from a few ulps off."""
    if program.budget is None or norm == 0:
        return 1.0
    return min(program.budget / norm, 1.0)
