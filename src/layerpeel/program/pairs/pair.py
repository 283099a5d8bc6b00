"""Two groups of classes within a budget: the explicit path, certified."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.counts import CountGroup
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.pairs.certificate import certify_two_groups
from layerpeel.program.pairs.dual_path import solve_two_groups
from layerpeel.program.pairs.two_groups import TwoGroups
from layerpeel.program.solution import Solution, Status

Groups = tuple[tuple[int, ...], ...]


def is_pair(program: ClassLevel, groups: Groups) -> bool:
    """Whether the program is plain cross-entropy of two groups, per class, no bias."""
    loss = program.loss
    if not isinstance(loss, SoftmaxLoss) or len(groups) != 2:
        return False
    plain = (loss.scale == 1) & (loss.margin == 1) & (loss.offset == 0)
    even = plain & (loss.smoothing == 0) & (program.feature_weights == 1)
    budget = program.regulariser.budget is not None
    return bool(even.all()) and budget and program.ridge is None


def two_group_program(groups: Sequence[CountGroup], tau: float) -> TwoGroups:
    """Return the scalar program of two groups of equally frequent classes."""
    majority, minority = groups
    return TwoGroups(
        majority=len(majority.classes),
        minority=len(minority.classes),
        log_ratio=_log_ratio(majority.count, minority.count),
        tau=tau,
    )


def solve_pair(program: ClassLevel, groups: Groups, gap_tol: float) -> Solution:
    """Solve a program of two groups; the cost does not depend on the sizes.

    Args:
        program: The program, as :func:`is_pair` asks.
        groups: The classes of either group, larger weights first.
        gap_tol: The relative gap up to which the solution calls itself certified.

    Returns:
        The solution, ``CERTIFIED`` if the evaluated gap is at most ``gap_tol``.
    """
    counted = [CountGroup(float(program.weights[g[0]]), g) for g in groups]
    tau = program.regulariser.budget or 0.0
    logits = solve_two_groups(two_group_program(counted, tau))
    spectrum = logits.spectrum(*groups)
    certificate, log_objective = certify_two_groups(logits)
    factors = SpectralFactors(
        spectrum, program.feature_weights, program.regulariser.balance
    )
    stats = {"log_objective": log_objective, "evaluations": logits.evaluations}
    status = Status.of_gap(certificate.gap, gap_tol)
    return Solution(
        status, certificate, factors, torch.zeros_like(program.weights), stats
    )


def _log_ratio(larger: float, smaller: float) -> float:
    """Return the log of a ratio of weights; ratios near one keep their digits."""
    if larger < 2 * smaller:
        return math.log1p((larger - smaller) / smaller)
    return math.log(larger) - math.log(smaller)
