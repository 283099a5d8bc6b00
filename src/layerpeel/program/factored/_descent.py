"""Descent to a stationary point: quasi-Newton steps, then Newton steps on the gradient.

L-BFGS compares values, and values cannot see a gradient below the root of the rounding
unit. The last digits come from Newton steps that are judged by the gradient instead.
The Hessian is singular, since rotations of the factors leave the objective unchanged:
MINRES solves such systems, as the gradient has no part along them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.optimize import Bounds, minimize
from scipy.sparse.linalg import LinearOperator, minres

from layerpeel._tolerances import EPS, STATIONARY_GRADIENT
from layerpeel.program.factored._data_term import Vector

_MEMORY = 20  # pairs of L-BFGS: its steps cost as much as one evaluation at K = 10
_NEWTON_STEPS = 30
_INNER_STEPS = 300
_INNER_TOL = 1e-4
_HALVINGS = 10


@runtime_checkable
class Smooth(Protocol):
    """A function of one vector, bounded below entry by entry."""

    @property
    def lower(self) -> Vector:
        """The lower bounds."""

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """Return the value and the gradient."""

    def unit(self, x: Vector) -> float:
        """Return the size of a gradient that counts as one."""


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a descent ended.

    Attributes:
        x: The last vector.
        value: What was minimised, at ``x``.
        gradient_norm: The norm of the projected gradient, in units of the function.
        steps: The number of steps taken.
        exhausted: Whether the step limit ended it.
    """

    x: Vector
    value: float
    gradient_norm: float
    steps: int
    exhausted: bool


def descend(function: Smooth, x: Vector, max_steps: int) -> Descent:
    """Follow the gradient from ``x`` until the value changes no more."""
    # A step that goes too far may overflow; the line search takes it back.
    with np.errstate(over="ignore", invalid="ignore"):
        result = minimize(
            function.value_and_gradient,
            x,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(function.lower, np.inf),
            options={
                "maxiter": max_steps,
                "maxfun": 2 * max_steps,
                "maxcor": _MEMORY,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        # Status 1 of scipy is a limit on steps or evaluations.
        return _end(function, result.x, int(result.nit), exhausted=result.status == 1)


def polish(function: Smooth, descent: Descent) -> Descent:
    """Take Newton steps while they shrink the gradient and keep the value."""
    current = descent
    for _ in range(_NEWTON_STEPS):
        if current.gradient_norm <= STATIONARY_GRADIENT:
            break
        better = _newton_step(function, current)
        if better is None:
            return current
        current = better
    return current


def _newton_step(function: Smooth, current: Descent) -> Descent | None:
    """Return a point of smaller gradient and no larger value, or ``None``."""
    _, gradient = function.value_and_gradient(current.x)
    free = (current.x > function.lower) | (gradient < 0)
    curvature = _hessian(function, current.x, free)
    step = np.zeros_like(current.x)
    step[free] = minres(
        curvature, -gradient[free], rtol=_INNER_TOL, maxiter=_INNER_STEPS
    )[0]
    slack = 100 * EPS * abs(current.value)
    for halving in range(_HALVINGS):
        x = np.maximum(current.x + step / 2**halving, function.lower)
        trial = _end(function, x, current.steps + 1, exhausted=current.exhausted)
        shrinks = trial.gradient_norm < 0.9 * current.gradient_norm
        if shrinks and trial.value <= current.value + slack:
            return trial
    return None


def _hessian(function: Smooth, x: Vector, free: np.ndarray) -> LinearOperator:
    """Return the Hessian in the free entries, by central differences of gradients."""
    reach = EPS ** (1 / 3) * max(1.0, float(np.linalg.norm(x)))

    def product(direction: Vector) -> Vector:
        shift = np.zeros_like(x)
        shift[free] = direction.ravel()
        step = reach / max(float(np.linalg.norm(direction)), np.finfo(float).tiny)
        ahead = function.value_and_gradient(x + step * shift)[1]
        behind = function.value_and_gradient(x - step * shift)[1]
        difference: Vector = (ahead - behind)[free] / (2 * step)
        return difference

    size = int(free.sum())
    return LinearOperator((size, size), matvec=product, dtype=np.float64)


def _end(function: Smooth, x: Vector, steps: int, *, exhausted: bool) -> Descent:
    value, gradient = function.value_and_gradient(x)
    pressed = (x <= function.lower) & (gradient > 0)
    norm = float(np.linalg.norm(np.where(pressed, 0.0, gradient)))
    return Descent(x, value, norm / function.unit(x), steps, exhausted)
