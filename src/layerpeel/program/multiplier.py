r"""The price of the norm at a solution, and the classes that are not worth it.

A budget on :math:`X = Z \operatorname{diag}(\delta)` has a Lagrange multiplier
:math:`\mu`, what a unit of norm is worth in loss; a penalty states it. Where it is known,
collapse can be read off the class counts. At equal logits within a group of :math:`m`
classes that are alike, the slope of the loss of one of them in their spread is
:math:`-(1 - 1/m) \gamma (1 - \varepsilon) / \text{margin}` *whatever the other logits
and the bias are*, so that the spread is zero exactly when

.. math::
    \pi_k \, \gamma_k (1 - \varepsilon_k) / m_k \leq \mu \, \delta_k .

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: minority
    | collapse
    | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
    | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the
    | threshold of the penalised model for two groups
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.solution import Solution

# A budget is spent up to rounding where it binds, as far as the solution is accurate.
_SPENT = 1e-6


def log_multiplier(program: ClassLevel, solution: Solution) -> float:
    r"""Return :math:`\log \mu` of a one-layer program at its solution.

    With a budget :math:`\tau`, stationarity of the factors along themselves gives
    :math:`\mu \tau = -\langle \nabla_X L, X \rangle`, for free and for nonnegative
    features, with and without a bias.

    Args:
        program: The program, of one layer.
        solution: Its solution.

    Returns:
        The logarithm, which is finite where the multiplier underflows; minus infinity
        where the budget is not spent, and worth nothing.
    """
    if program.regulariser.multiplier is not None:
        return math.log(program.regulariser.multiplier)
    budget = program.regulariser.budget or 0.0
    if spent(program, solution) < budget * (1 - _SPENT):
        return -math.inf
    return _log_gain(program, solution) - math.log(budget)


def spent(program: ClassLevel, solution: Solution) -> float:
    r"""Return :math:`\|W\|_F \|\bar H \operatorname{diag}(\delta)\|_F`.

    At an optimum of one layer with free features this is the nuclear norm of
    :math:`X`.
    """
    geometry, delta = solution.geometry, program.feature_weights
    classifiers = geometry.classifier_gram.diagonal().sum()
    features = delta.square() @ geometry.feature_gram.diagonal()
    return math.sqrt(classifiers) * math.sqrt(features)


def below_threshold(program: ClassLevel, solution: Solution) -> tuple[int, ...]:
    r"""Return the classes that are at or below the collapse threshold.

    Classes that are alike, and below it, have one common classifier. Classes of distinct
    counts below it do not quite: their classifiers lie close together and span fewer
    dimensions than there are classes. A class alone below it has no other to merge with.

    Args:
        program: A program of one layer with free features.
        solution: Its solution.

    Raises:
        ValueError: If the program is another one.
    """
    if program.nonnegative or program.regulariser.depth > 1:
        raise ValueError(
            "`program` must have one layer and free features: the collapse threshold "
            "of classes that are alike is derived for those."
        )
    limit = log_multiplier(program, solution)
    return tuple(int(k) for k in (log_leads(program) <= limit).nonzero().flatten())


def log_leads(program: ClassLevel) -> Float64[Tensor, " K"]:
    r"""Return the logarithm of the multiplier at which each class collapses."""
    slopes = program.weights
    if isinstance(program.loss, SoftmaxLoss):
        loss = program.loss
        slopes = slopes * loss.scale * (1 - loss.smoothing) / loss.margin
    return slopes.log() - program.feature_weights.log()


def _log_gain(program: ClassLevel, solution: Solution) -> float:
    r"""Return the logarithm of :math:`-\langle \nabla_Z L, Z \rangle`."""
    loss = program.loss
    if isinstance(loss, SoftmaxLoss):
        return _log_softmax_gain(program.weights, loss, solution.logits, solution.bias)
    residual = solution.logits + solution.bias[:, None] - torch.eye(program.num_classes)
    gain = -float((program.weights * residual * solution.logits).sum())
    return math.log(gain) if gain > 0 else -math.inf


def _log_softmax_gain(
    weights: Float64[Tensor, " K"],
    loss: SoftmaxLoss,
    logits: Float64[Tensor, "K K"],
    bias: Float64[Tensor, " K"],
) -> float:
    """Sum over the other classes, in units of their largest weighted probability.

    Residuals sum to zero in every column, so that the own probability, which can be one
    to within rounding, is not needed.
    """
    scaled = loss.scale[:, None] * logits / loss.margin
    shift = (loss.scale * bias)[:, None] / loss.margin
    log_others = torch.log_softmax(scaled + shift + loss.offset[:, None], dim=0)
    log_others = (log_others + weights.log()).fill_diagonal_(-math.inf)
    unit = float(log_others.max())
    others = torch.exp(log_others - unit)
    if bool((loss.smoothing > 0).any()):
        targets = loss.targets * weights * math.exp(-unit)
        others = others - targets.fill_diagonal_(0.0)
    gain = float((others * (scaled.diagonal() - scaled)).sum())
    return math.log(gain) + unit if gain > 0 else -math.inf
