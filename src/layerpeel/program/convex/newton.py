r"""Newton's method in the factors of the convex program.

Each step solves for the Newton direction by preconditioned conjugate gradients
(Steihaug's variant, inside a trust region), on the tangent space of the sphere where
there is a budget. The rotations that leave a point unchanged are directions of zero
curvature and zero slope, which conjugate gradients never enter. The final accuracy is
quadratic, which matters: the duality gap is first order in the error of the solution,
while the objective is second order and stalls first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from layerpeel.program.convex.factor_space import FactorSpace, Vector
from layerpeel.program.convex.local import Local
from layerpeel.program.convex.preconditioner import Preconditioner

# The first trust region, as a share of the norm of the factors.
_FIRST_TRUST = 0.3

# Conjugate gradients reduce the slope by this much at least, far from the solution, and
# near the goal to this share of it.
_LOOSEST = 0.1
_BEYOND_GOAL = 0.3

# A Newton step takes at most this many products: beyond, rounding has won.
_MOST_PRODUCTS = 1000

# Relative changes of the objective below this, per unit of its logarithm, are rounding:
# it sums up to K^2 terms. A slope has to fall to this share to count instead.
_NOISE = 1e-12
_FLATTER = 0.9

# A step is shortened this often before the search gives up: the slope is then rounding.
_SHORTENINGS = 30


@dataclass(frozen=True)
class NewtonStats:
    """What a run of Newton's method cost, and how it ended.

    Attributes:
        steps: Newton steps.
        products: Hessian-vector products.
        residual: The relative norm of the last slope.
    """

    steps: int
    products: int
    residual: float


def minimise(
    space: FactorSpace, y: Vector, tol: float, max_steps: int
) -> tuple[Vector, NewtonStats]:
    """Descend from factors to a stationary point of the program.

    Args:
        space: The factor space, with its program.
        y: The factors to start from.
        tol: The relative slope to stop at.
        max_steps: The largest number of Newton steps.

    Returns:
        The factors, and what finding them took.
    """
    local = Local.at(space, space.retract(y))
    trust = _FIRST_TRUST * float(local.y.norm()) or 1.0
    products = steps = 0
    while local.residual > tol and steps < max_steps:
        direction = _newton_direction(local, trust, tol)
        products += direction.products
        following, share = _shorten(local, direction.step)
        if following is None:
            break
        if share < 1:
            trust = share * float(direction.step.norm())
        elif direction.at_edge:
            trust = 2 * trust
        local = following
        steps += 1
    return local.y, NewtonStats(steps, products, local.residual)


@dataclass(frozen=True, eq=False)
class _Tangent:
    """The tangent space of the sphere at some factors, or everything without one.

    Attributes:
        inverse: The preconditioner of the whole space.
        normal: The normal of the sphere, zero without one.
        bent: The preconditioner times the normal.
    """

    inverse: Preconditioner
    normal: Vector
    bent: Vector

    @classmethod
    def at(cls, local: Local) -> _Tangent:
        inverse = Preconditioner.at(local)
        normal = torch.zeros_like(local.y)
        if local.space.radius2 is not None:
            normal = local.space.is_factor * local.y
        return cls(inverse, normal, inverse(normal))

    def project(self, v: Vector) -> Vector:
        """Return the nearest tangent vector."""
        return v - self.normal * _share(self.normal @ v, self.normal @ self.normal)

    def precondition(self, v: Vector) -> Vector:
        """Return the approximate inverse of the Hessian within the tangent space."""
        inverted = self.inverse(v)
        share = _share(self.normal @ inverted, self.normal @ self.bent)
        return inverted - self.bent * share


@dataclass(frozen=True, eq=False)
class _Direction:
    """A step, what it took, and whether it ends at the edge of the trust region."""

    step: Vector
    products: int
    at_edge: bool


def _newton_direction(local: Local, trust: float, tol: float) -> _Direction:
    """Solve for the Newton step, as accurately as it pays."""
    tangent = _Tangent.at(local)
    accuracy = _accuracy(local.residual, tol)
    step = torch.zeros_like(local.y)
    rest = -local.slope
    direction = scaled = tangent.precondition(rest)
    square = first = float(rest @ scaled)
    products = 0
    while products < min(len(step), _MOST_PRODUCTS) and square > accuracy**2 * first:
        curved = tangent.project(local.hessian(direction))
        products += 1
        curvature = float(direction @ curved)
        if curvature <= 0:
            return _Direction(_to_edge(step, direction, trust), products, True)
        length = square / curvature
        longer = step + length * direction
        if float(longer.norm()) > trust:
            return _Direction(_to_edge(step, direction, trust), products, True)
        step, rest = longer, rest - length * curved
        scaled = tangent.precondition(rest)
        previous, square = square, float(rest @ scaled)
        direction = scaled + (square / previous) * direction
    return _Direction(step, products, False)


def _accuracy(residual: float, tol: float) -> float:
    """Return by how much conjugate gradients should reduce the slope.

    More as the solution comes near, which makes Newton's method superlinear; no need to
    be far more accurate than the goal.
    """
    wanted = max(math.sqrt(residual), _BEYOND_GOAL * tol / residual)
    return min(_LOOSEST, wanted)


def _to_edge(step: Vector, direction: Vector, trust: float) -> Vector:
    """Return the step continued along a direction up to the edge of the trust region."""
    a, b = float(direction @ direction), float(step @ direction)
    c = float(step @ step) - trust**2
    if a == 0:
        return step
    return step + (math.sqrt(max(b * b - a * c, 0.0)) - b) / a * direction


def _shorten(local: Local, step: Vector) -> tuple[Local | None, float]:
    """Return the first of the halved steps that descends, and its share of the step."""
    share = 1.0
    for _ in range(_SHORTENINGS):
        y = local.space.retract(local.y + share * step)
        following = Local.at(local.space, y)
        if _descends(local, following):
            return following, share
        share *= 0.5
    return None, share


def _descends(local: Local, following: Local) -> bool:
    """Whether the objective falls, as far as float64 can tell.

    Near the solution the change of the objective is rounding; a slope that becomes
    smaller tells there.
    """
    if not math.isfinite(following.residual):
        return False
    change = math.expm1(min(following.log_value - local.log_value, 700.0))
    noise = _NOISE * (1 + abs(local.log_value))
    flatter = following.residual < _FLATTER * local.residual
    return change < -noise or (change < noise and flatter)


def _share(part: torch.Tensor, whole: torch.Tensor) -> float:
    """Return a ratio, zero where there is nothing to share."""
    return float(part) / float(whole) if float(whole) != 0 else 0.0
