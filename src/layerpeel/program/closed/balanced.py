r"""Balanced classes: a simplex equiangular tight frame, in closed form.

The program is convex and unchanged under permutations of the classes, so averaging
over them keeps an optimal logit matrix optimal, and makes it
:math:`Z = a (I - \tfrac{1}{K} J)`, up to a multiple of :math:`J` that the
cross-entropy does not see and the norm would pay for. A bias can only be constant, so
it is zero. One scalar is left, the logit gap :math:`a` at the price
:math:`\|Z\|_* = (K - 1) a`.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: budgets
    | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et al.,
    | 2021), https://arxiv.org/abs/2105.02375: penalties, with the scale as the root of
    | an equation
    | Are All Losses Created Equal: A Neural Collapse Perspective (Zhou et al., 2022),
    | https://arxiv.org/abs/2210.02192: label smoothing
"""

from __future__ import annotations

import torch

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.closed._reach import (
    common_value,
    require,
    require_symmetric,
    require_width,
    softmax_loss,
)
from layerpeel.program.closed.logit_gaps import GapProgram
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Solution, Status
from layerpeel.program.spectrum import BlockSpectrum


def solve_balanced(program: ClassLevel, gap_tol: float) -> Solution:
    r"""Solve a cross-entropy program of one layer whose classes are all alike.

    The solution is :math:`Z = a (I - \tfrac{1}{K} J)`: the classifiers form a simplex
    equiangular tight frame and the features are aligned with them. Within a budget
    :math:`\tau = K \sqrt{E_W E_H}`

    .. math::
        a = \frac{\tau}{K - 1} , \qquad \text{at most} \quad
        \log \frac{1 + (K - 1)(1 - \varepsilon)}{\varepsilon}

    with label smoothing :math:`\varepsilon`, whose loss is smallest at a finite gap:
    from there on the budget is not spent. With decay per sample and :math:`n` samples
    per class,

    .. math::
        a = \max\left(0, \log\left(\frac{1}{\sqrt{n \lambda_W \lambda_H}
        + \varepsilon / K} - (K - 1)\right)\right) .

    Any bias is zero. A scale and a margin that all classes share rescale :math:`a`.

    Args:
        program: The program; equal weights, feature weights, scales, offsets, margins
            and smoothing, a uniform common target, and a width of at least
            :math:`K - 1` unless the solution is zero.
        gap_tol: Not needed by a formula.

    Returns:
        The solution, with status ``CLOSED_FORM``.

    Raises:
        ValueError: If the program is not of this form.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
        | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et
        | al., 2021), https://arxiv.org/abs/2105.02375
    """
    loss = softmax_loss(program)
    require(not program.nonnegative, "features of any sign", "nonnegative features")
    require_symmetric(loss)
    stretch = _stretch(loss)
    delta = common_value("feature weight", program.feature_weights)
    K = program.num_classes
    scalar = GapProgram(
        K,
        program.weights.new_tensor([K * common_value("weight", program.weights)]),
        program.weights.new_tensor([(K - 1) * delta * stretch]),
        program.weights.new_tensor([common_value("smoothing", loss.smoothing)]),
    ).solve(program.regulariser)
    spread = scalar.gaps * (stretch * delta)
    require_width(program, K - 1 if float(spread) > 0 else 0)
    none = spread.new_zeros(1, 0)
    spectrum = BlockSpectrum((tuple(range(K)),), spread, none[0], none, none)
    return Solution(
        Status.CLOSED_FORM,
        scalar.certificate,
        SpectralFactors(spectrum, program.feature_weights, program.regulariser.balance),
        torch.zeros_like(program.weights),
        {"log_objective": scalar.log_objective},
    )


def _stretch(loss: SoftmaxLoss) -> float:
    """Return the gap between logits over the gap that the softmax sees."""
    return common_value("margin", loss.margin) / common_value("scale", loss.scale)
