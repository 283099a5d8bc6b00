"""The best point found on the factors themselves: for every program.

Some programs have no convex form: several layers under cross-entropy, or a width below
the rank of the solution. Their factors are optimised directly, from many starts, and
the outcome is called what it is: the best found.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch

from layerpeel._checks import at_least, positive
from layerpeel._progress import track
from layerpeel._tolerances import CERTIFIED_GAP, STATIONARY_GRADIENT
from layerpeel.program.class_level import ClassLevel, SquaredLoss
from layerpeel.program.factored._bound import lower_bound
from layerpeel.program.factored._data_term import Vector
from layerpeel.program.factored._depth_bound import chord_program
from layerpeel.program.factored._descent import Descent, polish
from layerpeel.program.factored._objective import FactorObjective, Point
from layerpeel.program.factored._points import explicit_factors
from layerpeel.program.factored._rounding import Decomposition, rounded
from layerpeel.program.factored._search import agreeing, descents, improves, lowest
from layerpeel.program.factors import ExplicitFactors, Factors
from layerpeel.program.solution import Certificate, Solution, Status

# One layer needs one start; the second is for a first one that stalls.
_BOUND_STARTS = 2


def solve_factored(
    program: ClassLevel,
    gap_tol: float = CERTIFIED_GAP,
    *,
    starts: int = 16,
    seed: int = 0,
    bound: float | None = None,
    warm: Sequence[Factors] = (),
    max_steps: int = 5000,
    progress: bool | None = None,
) -> Solution:
    r"""Minimise over the factors :math:`W_M, \dots, W_1, \bar H` from many starts.

    The starts are all zeros, the frame of the labels, and random factors: with several
    layers over all ranks at first, then near the rank of the best so far, since zero
    singular values are local optima there. All are compared by objective. The best one
    is polished by Newton steps, and singular values that a descent left of a zero are
    set to zero where that does not raise the objective.

    **What is proved.** For one layer the dual of the convex program is evaluated at the
    outcome. It certifies the outcome if the optimum needs no more than the width. That
    includes nonnegative features, whose norm is bounded through copositive matrices: a
    bound that is exact for up to four classes, and was in all cases tried with more.
    Otherwise the status is ``STATIONARY``: the best found. With several layers a convex
    program below them gives a bound, which is far from tight.

    References:
        | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et
        | al., 2021), https://arxiv.org/abs/2105.02375: one layer has no spurious local
        | minima
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: several layers

    Args:
        program: Any program: loss, budget or penalty, depth, bias, features, width.
        gap_tol: The relative gap to a lower bound up to which the solution calls itself
            certified.
        starts: The number of random starts. A one-layer program stops at the first one
            that is certified; with several layers more follow while few agree.
        seed: The seed of the random starts.
        bound: A lower bound proved elsewhere, for instance by the convex program
            without the limit on the width.
        warm: Factors to start from as well, of any width; a solution of a similar
            program, for instance.
        max_steps: The limit on the steps of each descent.
        progress: Whether to show a progress bar; where someone can see it, if omitted.

    Returns:
        The best found, ``CERTIFIED`` if its gap is at most ``gap_tol``, ``MAX_STEPS`` if
        the step limit ended it, ``NONFINITE`` if no finite value was found, and else
        ``STATIONARY``, also where the loss is too small for float64 to tell from zero:
        the relative gap is one then. The stats are ``gradient_norm``, relative to the
        objective; ``starts``, the number of descents; ``agreeing``, how many of them
        reached the best value; and ``steps``, those of the best descent.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> from layerpeel.program.class_level import ClassLevel, SquaredLoss
        >>> from layerpeel.program.regulariser import Regulariser
        >>> penalty = Regulariser(None, multiplier=0.1, depth=1, balance=1.0)
        >>> ones = torch.ones(2, dtype=torch.float64)
        >>> solution = solve_factored(ClassLevel(ones / 2, ones, SquaredLoss(), penalty))
        >>> solution.status.name, round(solution.objective, 8)
        ('CERTIFIED', 0.18)
        >>> solution.logits.round(decimals=8).abs().tolist()
        [[0.8, 0.0], [0.0, 0.8]]
    """
    positive("gap_tol", gap_tol)
    at_least("starts", starts, 1)
    at_least("max_steps", max_steps, 1)
    if not (program.weights.isfinite() & program.feature_weights.isfinite()).all():
        return _nonfinite(program)
    objective = FactorObjective(program, _useful_width(program))
    search = descents(objective, warm, starts, seed, max_steps)
    ends: list[Descent] = []
    for end in track(search, "Descending from many starts", show=progress):
        improved = improves(objective, end, ends)
        ends.append(end)
        # One layer may be certified at once; the others run through all starts.
        if program.regulariser.depth == 1 and improved:
            solution = _concluded(objective, ends, gap_tol, bound)
            if solution.status is Status.CERTIFIED:
                return solution
    return _concluded(objective, ends, gap_tol, bound)


def _useful_width(program: ClassLevel) -> int:
    """Return the width, but no more than helps."""
    K = program.num_classes
    # Nonnegative factors of a matrix may need more columns than its rank.
    most = 2 * K if program.nonnegative else K
    return min(program.width or K, most)


def _concluded(
    objective: FactorObjective,
    ends: Sequence[Descent],
    gap_tol: float,
    bound: float | None,
) -> Solution:
    """Polish the best end, and return it with what is proved about it."""
    best = lowest(ends)
    if best is None:
        return _nonfinite(objective.program)
    polished = polish(objective, best)
    value, factors, bias = _outcome(objective, polished)
    proved = _proved(objective.program, value, factors, bias)
    # Rounding can push a tight bound past the objective.
    proved = min(max(proved, _checked(bound, value)), value)
    certificate = Certificate(
        value, proved, 1.0 if _underflown(objective, value) else None
    )
    stats = {
        "gradient_norm": polished.gradient_norm,
        "starts": len(ends),
        "agreeing": agreeing(objective, ends, best),
        "steps": polished.steps,
    }
    status = _status(polished, certificate, gap_tol)
    return Solution(status, certificate, factors, torch.tensor(bias), stats)


def _outcome(
    objective: FactorObjective, polished: Descent
) -> tuple[float, Factors, Vector]:
    """Return the objective, the factors in the scale of the program, and the bias."""
    point = objective.unpack(polished.x)
    factors: Factors
    if objective.program.nonnegative:
        value = objective.value(polished.x)
        factors = explicit_factors(objective.program, point)
    else:
        found = rounded(_decomposed(objective, point), point.bias)
        value, factors = found.objective(point.bias), found.factors
    return (0.0 if _exact(objective, value) else value), factors, point.bias


def _decomposed(objective: FactorObjective, point: Point) -> Decomposition:
    """Return the singular values of the product, no more than the width."""
    found = Decomposition.of(objective.program, objective.logits(point))
    return found.with_values(found.values[: objective.width])


def _exact(objective: FactorObjective, value: float) -> bool:
    """Whether labels are met exactly, up to rounding, within a budget."""
    squared = isinstance(objective.program.loss, SquaredLoss)
    budget = objective.program.regulariser.budget is not None
    return squared and budget and value < objective.rounding


def _proved(program: ClassLevel, value: float, factors: Factors, bias: Vector) -> float:
    """Return the lower bound that the outcome itself proves."""
    means = factors.class_means().T.numpy() * program.feature_weights.numpy()
    proved = lower_bound(program, factors.geometry.logits.numpy(), bias, means)
    if program.regulariser.depth == 1 or not value > proved:
        return proved
    below = solve_factored(
        chord_program(program, value, proved), starts=_BOUND_STARTS, progress=False
    )
    return max(proved, below.certificate.lower_bound)


def _status(polished: Descent, certificate: Certificate, gap_tol: float) -> Status:
    status = Status.of_gap(certificate.gap, gap_tol)
    stopped = polished.exhausted and polished.gradient_norm > STATIONARY_GRADIENT
    return Status.MAX_STEPS if status is Status.STATIONARY and stopped else status


def _underflown(objective: FactorObjective, value: float) -> bool:
    """Whether a loss that is never zero is too small for float64."""
    return objective.logarithmic and value < sys.float_info.min


def _checked(bound: float | None, value: float) -> float:
    """Return a bound from elsewhere, or minus infinity.

    Raises:
        ValueError: If a point was found below it.
    """
    if bound is None:
        return -math.inf
    if bound > value + CERTIFIED_GAP * abs(value):
        raise ValueError(
            f"`bound` must be a lower bound on the objective; got {bound!r}, but a point "
            f"with the objective {value!r} was found. Leave `bound` out."
        )
    return float(bound)


def _nonfinite(program: ClassLevel) -> Solution:
    nan = torch.full((program.num_classes,) * 2, math.nan, dtype=torch.float64)
    certificate = Certificate(math.nan, -math.inf)
    return Solution(Status.NONFINITE, certificate, ExplicitFactors(nan, nan), nan[0])
