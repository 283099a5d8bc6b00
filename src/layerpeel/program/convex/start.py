r"""Where to start: a program that separates over the classes.

If classes did not compete for directions, the logits would be
:math:`(I - u u^\top / \|u\|^2) \operatorname{diag}(a)`, with :math:`u` what the softmax
does not see (ones, without scales), and each :math:`a_k` would have a closed form at a
given multiplier of the norm. That is the exact solution for nonnegative features, and
close to the solution for free ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float64
from scipy.optimize import brentq
from torch import Tensor

from layerpeel._tolerances import EPS
from layerpeel.program.convex.bias import stationary_bias
from layerpeel.program.convex.blocks import BlockProgram, Point
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace, Vector

# Small programs start with every direction; large ones with those that the separable
# program uses and a few more.
_ALWAYS_FULL = 64
_SPARE_SHARE = 0.02

# Directions start no smaller than this share of the largest: zero is stationary.
_FLOOR = 0.05

# The largest is taken to be a logit of this size at most and at least, for that.
_LARGE_LOGIT = 20.0
_SMALL_LOGIT = 0.1

Gaps = Callable[[float], Float64[Tensor, " G"]]


def starting_factors(program: BlockProgram) -> tuple[FactorSpace, Vector]:
    """Return factors of the separable program's logits, with no direction near zero.

    The program of the space has no bias where its ridge leaves none.
    """
    point = starting_point(program)
    if program.holds_bias(program.columns(point)):
        program = replace(program, ridge=None)
    if program.ridge is not None:
        point = stationary_bias(program, point)
    directions = Directions.of(point.between)
    floor = floor_of(program, point, directions)
    rank = program.num_groups
    if rank > _ALWAYS_FULL:
        used = int((directions.values > 1e-6 * directions.values[0]).sum())
        rank = min(rank, used + math.ceil(_SPARE_SHARE * rank))
    left, values, right = directions.kept(torch.arange(rank))
    raised = Directions(left, values.clamp(min=floor), right)
    space = FactorSpace(program, rank)
    y = space.factors(raised, point.spread.clamp(min=floor), point.bias)
    return space, space.project(y)


def floor_of(program: BlockProgram, point: Point, directions: Directions) -> float:
    """Return the least singular value to start from, for directions from a point."""
    weight = float(program.feature_weights.max())
    largest = float(torch.cat([directions.values, point.spread]).max())
    return _FLOOR * min(max(largest, _SMALL_LOGIT * weight), _LARGE_LOGIT * weight)


def starting_point(program: BlockProgram) -> Point:
    """Return the logits of the separable program, with a bias against the offsets."""
    # A root is found number by number, which is no work for an accelerator.
    gaps = _gaps(program.to(torch.device("cpu"))).to(program.sizes)
    weighted = gaps * program.feature_weights
    root = program.sizes.sqrt()
    between = torch.diag(weighted)
    if program.common is not None:
        # Cross-entropy does not see a common input of the softmax.
        between = between - torch.outer(program.common, program.common * weighted)
    # A free bias makes up for any offset; one with a ridge has to pay for that.
    share = 1.0 if program.ridge == 0 else 0.0
    return Point(weighted, between, -share * root * program.offset / program.scale)


def _gaps(program: BlockProgram) -> Float64[Tensor, " G"]:
    """Return the logit gaps, at the multiplier given or the one that fits the budget."""
    gaps_at = _squared_gaps(program)
    if program.targets is not None:
        gaps_at = _softmax_gaps(program, program.targets)
    if program.multiplier is not None:
        return gaps_at(math.log(program.multiplier))
    budget = program.budget or 0.0

    def spent(log_multiplier: float) -> float:
        gaps = gaps_at(log_multiplier)
        return float(program.sizes @ (program.feature_weights * gaps))

    log_multiplier = _decreasing_root(spent, budget)
    gaps, total = gaps_at(log_multiplier), spent(log_multiplier)
    # A budget too small for the root to resolve is shared evenly.
    return (
        gaps * (budget / total)
        if total > 0
        else torch.full_like(gaps, budget / float(program.sizes.sum()))
    )


def _softmax_gaps(program: BlockProgram, targets: Float64[Tensor, "G G"]) -> Gaps:
    r"""Return the gap at which a class leaves a probability as its price asks."""
    K = float(program.sizes.sum())
    gain = program.scale / program.margin
    base = program.feature_weights.log() - gain.log() - program.log_weights
    log_smoothed = (targets * program.sizes[:, None]).sum(dim=0).log()

    def gaps(log_multiplier: float) -> Float64[Tensor, " G"]:
        log_price = torch.logaddexp(base + log_multiplier, log_smoothed)
        rest = -torch.expm1(log_price.clamp(max=-EPS))
        log_odds = math.log(K - 1) + rest.log() - log_price
        return log_odds.clamp(min=0) / gain

    return gaps


def _squared_gaps(program: BlockProgram) -> Gaps:
    """Return the gap at which a class leaves an error as its price asks."""
    base = program.feature_weights.log() - program.log_weights
    return lambda log_multiplier: (-torch.expm1(base + log_multiplier)).clamp(min=0)


def _decreasing_root(function: Callable[[float], float], value: float) -> float:
    """Return where a decreasing function takes a value, or the last try above it.

    The function is zero far enough to the right, and may be bounded to the left.
    """
    low = high = 0.0
    step = 1.0
    while function(high) > value and step < 1e9:
        high, step = high + step, 2 * step
    step = 1.0
    while function(low) < value and step < 1e9:
        low, step = low - step, 2 * step
    if not function(low) > value > function(high):
        return low
    root: float = brentq(lambda x: function(x) - value, low, high, rtol=4 * EPS)
    return root
