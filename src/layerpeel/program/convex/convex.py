r"""Certified solutions of every one-layer program with free features.

Start from the separable program, descend by Newton's method in the factors, evaluate
the lower bound; ask for a smaller slope where the gap is still too wide. Where the
bound shows that a direction is missing (a singular value of the gradient above the
multiplier), it is added first.
"""

from __future__ import annotations

import torch

from layerpeel.program.class_level import ClassLevel
from layerpeel.program.convex.blocks import BlockProgram, Groups
from layerpeel.program.convex.known import known_optimum
from layerpeel.program.convex.missing import with_missing
from layerpeel.program.convex.newton import minimise
from layerpeel.program.convex.proof import Proof
from layerpeel.program.convex.start import starting_factors
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Solution, Status

# Rounds of descent, each towards a smaller slope or with more directions.
_ROUNDS = 12

# The relative slope that the first round aims at, in units of the gap asked for, and
# what a later one aims at, in units of what would suffice if they were proportional.
_FIRST_SLOPE = 0.3
_NEXT_SLOPE = 0.3

# A singular value of the gradient this far above the multiplier, relatively and in units
# of the gap asked for, is that of a direction that the factors lack.
_MISSING = 0.01


def solve_convex(
    program: ClassLevel,
    groups: Groups,
    gap_tol: float,
    *,
    max_steps: int = 200,
    device: torch.device | str = "cpu",
) -> Solution:
    r"""Solve a one-layer program with free features, and prove it.

    Args:
        program: The program; its width is taken to be large enough.
        groups: Classes that are alike; the cost is that of their number :math:`G`,
            in the order of :math:`10^2 G^3` operations, and :math:`O(G^2)` memory.
        gap_tol: The relative gap to reach.
        max_steps: The largest number of Newton steps.
        device: Where to compute, for instance ``"cuda"``; float64 throughout.

    Returns:
        The solution: ``CERTIFIED`` if the evaluated gap is at most ``gap_tol``,
        ``MAX_STEPS`` if the steps ran out before, ``STATIONARY`` if rounding stopped the
        descent.
    """
    blocks = BlockProgram.of(program, groups).to(torch.device(device))
    proof, stats = _prove(blocks, gap_tol, max_steps)
    status = Status.of_gap(proof.certificate.gap, gap_tol)
    if status is Status.STATIONARY and stats["steps"] >= max_steps:
        status = Status.MAX_STEPS
    balance = program.regulariser.balance
    factors = SpectralFactors(proof.spectrum(groups), program.feature_weights, balance)
    stats = {"log_objective": proof.log_objective, **stats}
    return Solution(status, proof.certificate, factors, proof.bias(groups), stats)


def _prove(
    program: BlockProgram, gap_tol: float, max_steps: int
) -> tuple[Proof, dict[str, float]]:
    """Return the point with the smallest gap, and what it took."""
    best = known_optimum(program)
    if best is not None:
        return best, {"steps": 0, "hessian_products": 0}
    space, y = starting_factors(program)
    steps = products = 0
    tol = _FIRST_SLOPE * gap_tol
    for _ in range(_ROUNDS):
        y, run = minimise(space, y, tol, max_steps - steps)
        steps, products = steps + run.steps, products + run.products
        proof = Proof.of(program, space, y)
        gap = proof.certificate.gap
        best = proof if best is None or gap < best.certificate.gap else best
        if gap <= gap_tol or steps >= max_steps:
            break
        wider = with_missing(space, proof, _MISSING * gap_tol)
        if wider is not None:
            space, y = wider
        elif run.residual > tol:
            break  # rounding keeps the slope from falling
        else:
            tol *= _NEXT_SLOPE * gap_tol / gap
    assert best is not None  # there is at least one round
    return best, {"steps": steps, "hessian_products": products}
