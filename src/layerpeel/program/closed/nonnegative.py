r"""Nonnegative features: orthogonal class means, and a program that separates.

Features after a ReLU. With :math:`w_k` the classifiers, :math:`\bar w` their mean,
:math:`g_k = \delta_k h_k` the weighted class means as rows of :math:`G`, and

.. math::
    a_k = \tfrac{K}{K-1} \langle w_k - \bar w, h_k \rangle ,

the mean lead of the own logit over the others, the proof is short.

1. *Loss.* Averaging the features of a class lowers their norm, and by Jensen's
   inequality, over the samples and over the other classes, the loss of class :math:`k`
   is at least
   :math:`\log(1 + (K-1) e^{-a_k}) + \tfrac{K-1}{K} \varepsilon_k a_k`, which falls as
   long as :math:`a_k \leq 0`.
2. *Norm.* Nonnegative features have :math:`\langle g_k, g_l \rangle \geq 0`. Hence
   centring the rows of :math:`G`, by :math:`P = I - J/K`, costs a definite share of
   its norm:

   .. math::
       \|P G\|^2 = \|G\|^2 - \tfrac{1}{K} \Big\|\sum_k g_k\Big\|^2
       \leq \tfrac{K-1}{K} \|G\|^2 .

   So :math:`\sum_k \delta_k \tfrac{K-1}{K} a_k = \langle W, P G \rangle` is at most
   :math:`\|W\| \sqrt{(K-1)/K} \, \|G\|`. Dropping the rows with :math:`a_k < 0` first,
   :math:`\sum_k \kappa_k \max(a_k, 0) \leq \|W\| \|G\|` with
   :math:`\kappa_k = \delta_k \sqrt{(K-1)/K}`.
3. *Attained.* What is left separates over the classes. Orthogonal features attain both
   bounds at once, with :math:`w_k = \sum_l c_l (\delta_{kl} - 1/K) \hat h_l`.

Equality in 2 needs orthogonal features, so as many dimensions as there are classes
that have not collapsed, and no more.

References:
    | Neural Collapse for Cross-entropy Class-Imbalanced Learning with Unconstrained
    | ReLU Feature Model (Dang et al., 2024), https://arxiv.org/abs/2401.02058: the
    | orthogonal means and the threshold of the penalised model; the proof above is ours
    | and covers budgets, smoothing, margins and weights
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import at_least
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.closed._reach import (
    common_value,
    require,
    require_symmetric,
    require_width,
    softmax_loss,
)
from layerpeel.program.closed.logit_gaps import GapProgram
from layerpeel.program.energy import Energy
from layerpeel.program.factors import ExplicitFactors
from layerpeel.program.pairs.thresholds import exp_or_inf
from layerpeel.program.solution import Solution, Status


def solve_nonnegative(program: ClassLevel, gap_tol: float) -> Solution:
    r"""Solve a cross-entropy program of one layer with nonnegative features.

    Any class counts, weights, smoothing and margins, without a bias. The optimal class
    means are orthogonal, whatever the counts, and every class has its own logit gap:
    with decay per sample, :math:`Z = (I - \tfrac{1}{K} J) \operatorname{diag}(a)` and

    .. math::
        a_k = \max\left(0, \log\left((K-1)(1/q_k - 1)\right)\right) , \qquad
        q_k = \sqrt{\frac{N^2 \lambda_W \lambda_H (K-1)}{K n_k}} ,

    so that class :math:`k` collapses, :math:`h_k = 0`, exactly when
    :math:`n_k \leq N^2 \lambda_W \lambda_H K / (K-1)`. Within a budget, the gaps fill
    :math:`\sum_k a_k = K \sqrt{E_W E_H K / (K-1)}` at a common multiplier. The
    classifiers of all collapsed classes coincide; they are zero only if all collapse.

    The factor problem has local minima that are not global, so that training need not
    reach this solution.

    A margin :math:`m_k` makes a gap :math:`m_k` times as expensive. A free or a ridge
    bias is zero where all classes are alike, by convexity; otherwise there is no
    closed form.

    Args:
        program: The program; the same scale and offset for every class and a uniform
            common target.
        gap_tol: Not needed by a formula.

    Returns:
        The solution, with status ``CLOSED_FORM``; ``stats["collapsed"]`` is the number
        of collapsed classes.

    Raises:
        ValueError: If the program is not of this form, or narrower than the number of
            classes that have not collapsed.

    References:
        | Neural Collapse for Cross-entropy Class-Imbalanced Learning with Unconstrained
        | ReLU Feature Model (Dang et al., 2024), https://arxiv.org/abs/2401.02058
    """
    loss = softmax_loss(program)
    require(program.nonnegative, "nonnegative features", "features of any sign")
    require_symmetric(loss)
    if program.ridge is not None:
        _require_alike(program, loss)
    K = program.num_classes
    prices = program.feature_weights * math.sqrt((K - 1) / K)
    stretch = loss.margin / common_value("scale", loss.scale)
    separable = GapProgram(
        K,
        program.weights,
        (prices * stretch),
        loss.smoothing,
    ).solve(program.regulariser)
    require_width(program, K - separable.collapsed)
    return Solution(
        Status.CLOSED_FORM,
        separable.certificate,
        _factors(program, separable.gaps * stretch, prices),
        torch.zeros_like(program.weights),
        {
            "log_objective": separable.log_objective,
            "collapsed": separable.collapsed,
        },
    )


def nonnegative_collapse_threshold(
    *,
    majority: int,
    minority: int,
    energy: Energy | Sequence[float],
    log: bool = False,
) -> float:
    r"""Return the ratio :math:`R_0` from which all minority features are zero.

    With :math:`K_A` majority and :math:`K_B` minority classes,
    :math:`R = n_A / n_B` and nonnegative features, the minority collapses exactly when

    .. math::
        R \geq R_0 = \frac{e^a + K - 1}{K} , \qquad
        a = \frac{K}{K_A} \sqrt{\frac{K E_W E_H}{K - 1}} .

    Then :math:`h_B = 0` and all minority classifiers are equal. Unlike with features of
    any sign, both happen at once, and a single minority class collapses too.

    Args:
        majority: The number of majority classes :math:`K_A \geq 1`.
        minority: The number of minority classes :math:`K_B \geq 1`.
        energy: The energies :math:`(E_W, E_H)`, per class.
        log: Return :math:`\log R_0`, which does not overflow.

    Returns:
        :math:`R_0 > 1`, or its logarithm; infinite where it overflows.

    Raises:
        ValueError: If a number of classes is below one, an energy is not finite and
            above zero, or the features' energy is per sample.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
        | model, with features of any sign

    Example:
        >>> energy = (1.0, 5.0)
        >>> round(
        ...     nonnegative_collapse_threshold(majority=5, minority=5, energy=energy), 2
        ... )
        12.05
    """
    K_A = at_least("majority", majority, 1)
    K = K_A + at_least("minority", minority, 1)
    tau = Energy.per_class(energy, "the threshold").nuclear_norm(K)
    value = _log_threshold(tau / K_A * math.sqrt(K / (K - 1)), K)
    return value if log else exp_or_inf(value)


def _log_threshold(gap: float, num_classes: int) -> float:
    """Return log((e^a + K - 1) / K), by expm1 while R0 - 1 may be small."""
    if gap < 1:
        return math.log1p(math.expm1(gap) / num_classes)
    rest = math.log1p((num_classes - 1) * math.exp(-gap))
    return gap + rest - math.log(num_classes)


def _require_alike(program: ClassLevel, loss: SoftmaxLoss) -> None:
    """Raise if a bias would not be zero."""
    common_value("weight (with a bias)", program.weights)
    common_value("feature weight (with a bias)", program.feature_weights)
    common_value("margin (with a bias)", loss.margin)
    common_value("smoothing (with a bias)", loss.smoothing)


def _factors(
    program: ClassLevel, gaps: Float64[Tensor, " K"], prices: Float64[Tensor, " K"]
) -> ExplicitFactors:
    """Return orthogonal features, and classifiers that give the gaps at least norm."""
    K, balance = program.num_classes, program.regulariser.balance
    active = gaps > 0
    norms = (prices * gaps / balance).sqrt() / program.feature_weights
    leads = (prices * gaps * balance * K / (K - 1)).sqrt()
    centred = torch.eye(K, dtype=torch.float64) - 1 / K
    return ExplicitFactors((centred * leads)[:, active], torch.diag(norms)[:, active])
