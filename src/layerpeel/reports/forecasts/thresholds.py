"""The imbalance ratios at which a minority collapses, where a formula gives them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from layerpeel._json import plain
from layerpeel.program import Energy, PeeledProblem
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.closed import nonnegative_collapse_threshold
from layerpeel.program.pairs.thresholds import (
    collapse_threshold,
    exp_or_inf,
    vanishing_threshold,
)
from layerpeel.program.reduction import alike
from layerpeel.program.support import largest_rank


@dataclass(frozen=True)
class Thresholds:
    r"""Where two groups of classes stand between apart, merged and vanished.

    Attributes:
        majority: The number of frequent classes.
        minority: The number of rare classes.
        log_ratio: :math:`\log R`, the ratio of what the loss weighs one frequent and one
            rare class by; that of their counts without class weights.
        log_collapse: :math:`\log R_0`, from which on minority classifiers are equal;
            with nonnegative features, minority features are zero from there on too.
        vanishing: :math:`R_1`, from which on classifiers and features are zero, infinite
            where they never are; ``None`` with nonnegative features.
    """

    majority: int
    minority: int
    log_ratio: float
    log_collapse: float
    vanishing: float | None

    @property
    def ratio(self) -> float:
        """The ratio :math:`R`."""
        return exp_or_inf(self.log_ratio)

    @property
    def collapse(self) -> float:
        """The ratio :math:`R_0`, infinite where it overflows."""
        return exp_or_inf(self.log_collapse)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        derived = {"ratio": self.ratio, "collapse": self.collapse}
        content: dict[str, Any] = plain(asdict(self) | derived)
        return content


def thresholds(problem: PeeledProblem) -> Thresholds | None:
    """Return the thresholds of a Layer-Peeled Model with two groups of classes.

    Args:
        problem: Any problem.

    Returns:
        The thresholds; ``None`` for other problems, which have no formula for them.
    """
    program, energy = problem.class_level(), problem.energy
    groups = alike(program)
    if energy is None or energy.per != "class" or len(groups) != 2:
        return None
    if not is_layer_peeled(program):
        return None
    majority, minority = map(len, groups)
    weights = program.weights[[groups[0][0], groups[1][0]]].log()
    log_collapse, vanishing = _ratios(program, majority, minority, energy)
    log_ratio = float(weights[0] - weights[1])
    return Thresholds(majority, minority, log_ratio, log_collapse, vanishing)


def _ratios(
    program: ClassLevel, majority: int, minority: int, energy: Energy
) -> tuple[float, float | None]:
    """Return log R0 and R1."""
    if program.nonnegative:
        threshold = nonnegative_collapse_threshold(
            majority=majority, minority=minority, energy=energy, log=True
        )
        return threshold, None
    threshold = collapse_threshold(
        majority=majority, minority=minority, energy=energy, log=True
    )
    return threshold, vanishing_threshold(
        majority=majority, minority=minority, energy=energy
    )


def is_layer_peeled(program: ClassLevel) -> bool:
    """Whether a program is a Layer-Peeled Model: plain loss, budgets, no bias."""
    loss = program.loss
    if not isinstance(loss, SoftmaxLoss) or program.ridge is not None:
        return False
    if program.regulariser.budget is None:
        return False
    if program.width is not None and program.width < largest_rank(program):
        return False
    plain_loss = (loss.scale == 1) & (loss.margin == 1) & (loss.offset == 0)
    return bool(torch.all(plain_loss & (loss.smoothing == 0)))
