r"""How many samples a class needs beside the others, in any program with a threshold.

The spread of a group of classes that are alike enters the loss at equal logits with a
slope that does not depend on anything else. It is zero exactly when the norm costs more
than that: at the multiplier :math:`\mu` of the solution, when

.. math::
    \mu \, \delta_k^{2/(M+1)} \geq \kappa^\star \, \phi \,
    \frac{(1 - \varepsilon_k) \gamma_k}{m_k} \, \pi_k ,

with scale :math:`\gamma`, margin :math:`m` and smoothing :math:`\varepsilon` of the
cross-entropy (one for the squared error), :math:`\phi = \sqrt{(K-1)/K}` for the
cross-entropy behind a ReLU and 1 otherwise, and :math:`\kappa^\star = 1` for one layer; for
more, only the squared error has a threshold. Offsets and a bias do not enter, for classes
that are alike share them. Solved for :math:`n_k`, that is the count up to which classes
merge.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | phenomenon
    | Neural Collapse for Cross-entropy Class-Imbalanced Learning with Unconstrained
    | ReLU Feature Model (Dang et al., 2024), https://arxiv.org/abs/2401.02058:
    | nonnegative features
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.closed.shrinkage import log_critical
from layerpeel.program.multiplier import log_leads, log_multiplier
from layerpeel.program.problem import PeeledProblem
from layerpeel.program.solution import Solution
from layerpeel.program.support import guarantee, largest_rank


def merging_counts(
    problem: PeeledProblem, solution: Solution
) -> Float64[Tensor, " K"] | None:
    r"""Return, for every class, the count up to which classes like it merge.

    Two or more classes that are alike have one common classifier exactly when their
    count is at most this. Where features are nonnegative, and for the squared error
    without a bias, a class by itself is zero then.

    Everything else is held as it is: the total count, the class weights, and the
    multiplier of the solution. With weight decay the multiplier is given, so that the
    count is a constant of the problem; energies have one that counts move.

    Args:
        problem: The problem.
        solution: Its solution.

    Returns:
        The counts, with shape :math:`(K,)`; ``None`` for problems without a known
        threshold: where the solution is only the best found or the width is limited,
        and for nonnegative features outside the closed forms.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Example:
        >>> problem = PeeledProblem([1000] * 3 + [20] * 3, weight_decay=(5e-4, 5e-3))
        >>> counts = merging_counts(problem, problem.solve())
        >>> round(float(counts[0]), 3)  # N^2 lam_W lam_H
        23.409
    """
    program = problem.class_level()
    if not _has_threshold(program):
        return None
    excess = _log_worth(program) - log_multiplier(program, solution)
    # Worth over price grows with the count like n for ones as feature weights, and
    # like n^(M/(M+1)) for square roots.
    holds = problem.energy or problem.weight_decay
    sampled = holds is not None and holds.per == "sample"
    power = 1 + 1 / program.regulariser.depth if sampled else 1.0
    counts = torch.tensor(problem.class_counts, dtype=torch.float64)
    return counts * torch.exp(-power * excess)


def _has_threshold(program: ClassLevel) -> bool:
    if program.width is not None and program.width < largest_rank(program):
        return False
    # Behind a ReLU, classes have thresholds of their own only where they decouple.
    needed = ("closed form",) if program.nonnegative else ("closed form", "certified")
    return guarantee(program) in needed


def _log_worth(program: ClassLevel) -> Float64[Tensor, " K"]:
    """Return the log of the multiplier up to which each class's spread is worth it."""
    depth = program.regulariser.depth
    # One layer prices the spread by delta, more by a smaller power of it.
    power = (depth - 1) / (depth + 1)
    worth = log_leads(program) + power * program.feature_weights.log()
    if program.nonnegative and isinstance(program.loss, SoftmaxLoss):
        worth = worth + 0.5 * math.log1p(-1 / program.num_classes)
    return worth + log_critical(depth)
