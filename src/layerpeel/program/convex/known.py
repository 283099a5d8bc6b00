r"""Points that are optimal at sight: zero logits, and a budget that is not spent.

A penalty above the gradient at zero leaves zero. A budget is not spent where the loss
cannot fall any further: for the squared error at :math:`Z + b 1^\top = I`, for smoothed
cross-entropy at :math:`P = T`. Descending into the inside of a ball would be slow: its
multiplier is zero, and with it the curvature of all directions that the loss does not
see.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import ABSENT_DIRECTION
from layerpeel.program.convex.bias import stationary_bias
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.columns import Blocks
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.proof import Proof


def known_optimum(program: BlockProgram) -> Proof | None:
    """Return the optimum of a program where it is known without a descent."""
    return _zero(program) if program.budget is None else _unspent(program)


def interpolant(program: BlockProgram) -> Point | None:
    """Return the point of least norm that leaves no avoidable loss, if there is one."""
    logits = _targets_met(program)
    if not bool(logits.others.isfinite().all()):
        return None
    own = logits.own / program.entry_scale.diagonal()
    others = logits.others / program.entry_scale
    same, root = others.diagonal(), program.sizes.sqrt()
    between = others * root[:, None] * root
    between.diagonal().copy_(own + program.extra * same)
    return _least_norm(program, Point(own - same, between, torch.zeros_like(own)))


def _zero(program: BlockProgram) -> Proof | None:
    """Return zero logits and the best bias if the penalty keeps them there."""
    none = torch.zeros_like(program.sizes)
    nowhere = Directions(none[:, None][:, :0], none[:0], none[:, None][:, :0])
    point = Point(none, nowhere.matrix, none)
    if program.ridge is not None:
        point = stationary_bias(program, point)
    gradient = program.gradient(program.columns(point))
    if program.spectral_norm(gradient) > (program.multiplier or 0.0):
        return None
    return Proof.at(program, nowhere, none, point.bias)


def _unspent(program: BlockProgram) -> Proof | None:
    """Return the point that leaves no avoidable loss if it fits the budget."""
    point = interpolant(program)
    if point is None:
        return None
    directions = Directions.of(point.between)
    norm = float(program.extra @ point.spread + directions.values.sum())
    if norm > (program.budget or 0.0):
        return None
    kept = directions.kept(directions.values > ABSENT_DIRECTION * directions.values[0])
    return Proof.at(program, kept, point.spread, point.bias)


def _targets_met(program: BlockProgram) -> Blocks:
    """Return logits at which the loss is least; infinite where there are none."""
    if program.targets is None:
        none = torch.zeros_like(program.sizes)
        return Blocks(none + 1, torch.diag(none))
    others = (program.sizes[:, None] * program.targets).sum(dim=0)
    own = 1 - others + program.targets.diagonal()
    offset = program.offset
    return Blocks(own.log() - offset, program.targets.log() - offset[:, None])


def _least_norm(program: BlockProgram, point: Point) -> Point:
    """Return the point without what the loss does not see, or a free bias makes up for."""
    between, bias = point.between, point.bias
    if program.common is not None:
        between = between - torch.outer(program.common, program.common @ between)
    if program.constant is not None:
        rows: Float64[Tensor, " G"] = between @ program.constant
        between = between - torch.outer(rows, program.constant)
        bias = rows / (program.sizes @ program.feature_weights.square()).sqrt()
    return Point(point.spread, between, bias)
