"""The best bias for given logits, solved to the last digits.

The lower bound of a program with a free bias holds only where the bias is stationary;
what is missing to that is subtracted from the bound. It is a start, too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.columns import Columns

_NEWTON_STEPS = 50
_HALVINGS = 20
_CG_STEPS = 500

# Conjugate gradients stop where the slope is rounding.
_CG_ROUNDING = 16 * EPS

# A whole step has to flatten the slope by this share, and a part of it by a part; less
# is rounding.
_FLATTER = 0.3


class _State(NamedTuple):
    """A point with the slope of the objective in the bias, and the log of its norm."""

    point: Point
    columns: Columns
    slope: Float64[Tensor, " G"]
    log_size: float

    @classmethod
    def at(cls, program: BlockProgram, point: Point) -> _State:
        columns = program.columns(point)
        ridge = program.ridge_in_unit(columns)
        slope = program.gradient(columns).bias + ridge * point.bias
        slope = _without_common(program, slope)
        # Not in the unit, which moves with the loss.
        size = float(slope.norm())
        log_size = math.log(size) + columns.log_scale if size > 0 else -math.inf
        return cls(point, columns, slope, log_size)


def stationary_bias(program: BlockProgram, point: Point) -> Point:
    """Return the point with the bias that minimises the objective.

    Newton's method, until no step and no shorter one flattens the slope: it is rounding
    then.
    """
    state = _State.at(program, point)
    for _ in range(_NEWTON_STEPS):
        following = _flatter(program, state, _newton_step(program, state))
        if following is None:
            break
        state = following
    return centred_bias(program, state.point)


def centred_bias(program: BlockProgram, point: Point) -> Point:
    """Return the point with the least bias of those that give cross-entropy the same."""
    return point._replace(bias=_without_common(program, point.bias))


def _flatter(
    program: BlockProgram, state: _State, step: Float64[Tensor, " G"]
) -> _State | None:
    """Return the first of the halved steps with a flatter slope, or ``None``."""
    point = state.point
    for share in (0.5**halving for halving in range(_HALVINGS)):
        moved = point._replace(bias=point.bias + share * step)
        following = _State.at(program, moved)
        if following.log_size < state.log_size + math.log1p(-share * _FLATTER):
            return following
    return None


def _without_common(
    program: BlockProgram, bias: Float64[Tensor, " G"]
) -> Float64[Tensor, " G"]:
    """Remove what adds a common number to all inputs of the softmax: it sees none."""
    common = program.common
    return bias if common is None else bias - (bias @ common) * common


def _newton_step(program: BlockProgram, state: _State) -> Float64[Tensor, " G"]:
    """Solve for the Newton step by conjugate gradients, scaled by the diagonal."""
    inverse = 1 / program.bias_weights(state.columns)
    step = torch.zeros_like(state.slope)
    rest = -state.slope
    direction = scaled = _without_common(program, inverse * rest)
    square = first = float(rest @ scaled)
    for _ in range(_CG_STEPS):
        if square <= _CG_ROUNDING**2 * first:
            break
        curved = _curvature(program, state, direction)
        curvature = float(direction @ curved)
        if curvature <= 0:
            break
        step = step + square / curvature * direction
        rest = rest - square / curvature * curved
        scaled = _without_common(program, inverse * rest)
        previous, square = square, float(rest @ scaled)
        direction = scaled + square / previous * direction
    return step


def _curvature(
    program: BlockProgram, state: _State, direction: Float64[Tensor, " G"]
) -> Float64[Tensor, " G"]:
    """Return the Hessian in the bias times a direction."""
    none, still = torch.zeros_like(direction), torch.zeros_like(state.point.between)
    curved = program.curvature(state.columns, Point(none, still, direction)).bias
    ridge = program.ridge_in_unit(state.columns)
    return _without_common(program, curved + ridge * direction)
