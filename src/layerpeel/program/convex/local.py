"""The objective with its derivatives, at some factors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from layerpeel.program.convex.blocks import Point
from layerpeel.program.convex.columns import Columns
from layerpeel.program.convex.factor_space import FactorSpace, Vector

# Keeps divisions defined where every slope is zero.
_LEAST_SCALE = 1e-300


@dataclass(frozen=True, eq=False)
class Local:
    """The objective, its gradient and its Hessian at some factors, in the unit.

    Attributes:
        space: The factor space.
        y: The factors.
        columns: The loss there.
        gradient: The gradient of the loss in the coordinates of a point.
        multiplier: The multiplier of the norm; with a ball, the one that leaves the
            least gradient.
        linear: The multiplier for the factors and the ridge for the bias.
        slope: The gradient in the factors, multiplier and ridge included.
        scale: The norm of the gradient of the loss, to which the slope compares.
    """

    space: FactorSpace
    y: Vector
    columns: Columns
    gradient: Point
    multiplier: float
    linear: Vector
    slope: Vector
    scale: float

    @classmethod
    def at(cls, space: FactorSpace, y: Vector) -> Local:
        """Evaluate everything at some factors."""
        columns = space.program.columns(space.point(y))
        gradient = space.program.gradient(columns)
        free, factors = space.pull(y, gradient), space.is_factor * y
        multiplier = space.program.multiplier
        if multiplier is None:
            multiplier = -float(free @ factors) / float(space.radius2 or 1.0)
        ridge = space.program.ridge_in_unit(columns)
        linear = multiplier * space.is_factor + ridge * (1 - space.is_factor)
        scale = float(free.norm()) + abs(multiplier) * float(factors.norm())
        slope = space.project(free + linear * y)
        return cls(space, y, columns, gradient, multiplier, linear, slope, scale)

    @property
    def residual(self) -> float:
        """The norm of the slope, relative; zero at a stationary point."""
        return float(self.slope.norm()) / max(self.scale, _LEAST_SCALE)

    @cached_property
    def log_value(self) -> float:
        """The logarithm of the objective, not in the unit; may be -inf."""
        square = self.y.square()
        if self.space.program.multiplier is None:
            square = square * (1 - self.space.is_factor)  # a budget costs nothing
        value = self.columns.value + 0.5 * float(self.linear @ square)
        # Of no number, the logarithm is none either: such a step is refused.
        return math.log(value) + self.columns.log_scale if value != 0 else -math.inf

    def hessian(self, v: Vector) -> Vector:
        """Return the Hessian of the Lagrangian times a direction."""
        space = self.space
        curved = space.program.curvature(self.columns, space.tangent(self.y, v))
        # Factors bend the point even where the loss is linear; a bias does not.
        flat = self.gradient._replace(bias=torch.zeros_like(self.gradient.bias))
        product = space.pull(self.y, curved) + space.pull(v, flat) + self.linear * v
        return space.project(product)
