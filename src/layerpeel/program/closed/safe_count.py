r"""How many samples a class needs in order not to collapse under weight decay.

At a multiplier :math:`c = (\lambda_H \prod_j \lambda_j)^{1/(M+1)}`, a class of loss
weight :math:`\pi_k = n_k / N` and feature weight :math:`\delta_k` (:math:`\sqrt{n_k}`
for decay per sample, 1 for decay per class) collapses exactly when

.. math::
    c \, \delta_k^{2/(M+1)} \geq \kappa^\star \pi_k , \qquad
    \kappa^\star = \frac{1}{M} \left(\frac{M-1}{M}\right)^{(M-1)/(M+1)} ,

which is solved for :math:`n_k`. For the squared error that compares the objective with
zero, class by class. For the cross-entropy and one layer, where
:math:`\kappa^\star = 1`, it is an optimality condition: with the logits of equally
frequent classes equal, their softmax probabilities are equal too, so the slope of the
loss along their spread is :math:`-(1 - \varepsilon) \pi_k (1 - 1/m)` whatever else
holds. A bias and additive logit adjustment do not change it.

References:
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data (Dang et
    | al., 2023), https://arxiv.org/abs/2301.00437: squared error; its equation without
    | the comparison gives a smaller count for several layers
    | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
    | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: two groups
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from layerpeel._checks import one_of, positive
from layerpeel._tolerances import EPS
from layerpeel.program.closed.shrinkage import log_critical
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.mse import MSE
from layerpeel.program.pairs.thresholds import exp_or_inf


def collapse_count(
    *,
    total: float,
    weight_decay: Decay | Sequence[float],
    loss: CrossEntropy | MSE | str = "cross_entropy",
) -> float:
    r"""Return the count :math:`n^\star` up to which classes collapse.

    With :math:`N` samples in all and decay per sample,

    .. math::
        n^\star = N^2 \lambda_W \lambda_H \; (M = 1) , \qquad
        n^\star = \frac{M^2}{(M-1)^{(M-1)/M}} \, N^{(M+1)/M}
        \Big(\lambda_H \prod_j \lambda_j\Big)^{1/M} .

    A class collapses exactly when :math:`n_k \leq n^\star`. With the squared error its
    logits and features are then zero (with a bias: two or more classes of that count
    have equal logits). With the cross-entropy, two or more classes of that count have
    equal classifiers; label smoothing divides the count by
    :math:`(1 - \varepsilon)^2`. With nonnegative features the squared error has the
    same count, and the cross-entropy :math:`K / (K - 1)` times as many.

    Args:
        total: The number :math:`N` of samples in all classes.
        weight_decay: The decays, or a tuple ``(lam_W, ..., lam_H)``.
        loss: ``"cross_entropy"`` (one layer), ``"mse"`` (any depth), or a loss.

    Returns:
        :math:`n^\star`, which need not be an integer; infinite where it overflows.

    Raises:
        ValueError: If ``total`` or a decay is not finite and above zero, or for losses
            without a known threshold: the cross-entropy with several layers, or with
            scales, offsets or margins per class.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437

    Example:
        >>> round(collapse_count(total=400, weight_decay=(0.25, 0.0004)), 6)
        16.0
    """
    decay = Decay.of(weight_decay)
    log_total = math.log(positive("total", total))
    sharpness = _sharpness(loss, decay)
    log_ratio = _log_multiplier(decay) + log_total - log_critical(decay.depth)
    # c n^{1/(M+1)} N / n >= kappa* for decay per sample; c N / n >= kappa* per class.
    power = (decay.depth + 1) / decay.depth if decay.per == "sample" else 1.0
    return exp_or_inf(power * (log_ratio - math.log(sharpness)))


def smallest_safe_count(
    *,
    total: float,
    weight_decay: Decay | Sequence[float],
    loss: CrossEntropy | MSE | str = "cross_entropy",
) -> int:
    r"""Return the least integer count at which a class does not collapse.

    :math:`\lfloor n^\star \rfloor + 1`, with :math:`n^\star` from
    :func:`collapse_count`: :math:`\lfloor N^2 \lambda_W \lambda_H \rfloor + 1` for one
    layer. The formula does not know how many classes share the total: a count above
    ``total`` means that there is none, and every class collapses, whatever the counts;
    so do some of :math:`K` classes where :math:`K` times the count is above it.

    Args:
        total: The number :math:`N` of samples in all classes.
        weight_decay: The decays, or a tuple ``(lam_W, ..., lam_H)``.
        loss: ``"cross_entropy"`` (one layer), ``"mse"`` (any depth), or a loss.

    Returns:
        The count; above ``total`` where no count keeps a class from collapsing.

    Raises:
        ValueError: As :func:`collapse_count`; and if the count overflows.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437

    Example:
        >>> smallest_safe_count(total=3000, weight_decay=(5e-4, 5e-3))
        23
        >>> smallest_safe_count(total=400, weight_decay=(0.25, 0.0004), loss="mse")
        17
        >>> smallest_safe_count(total=10, weight_decay=(1.0, 1.0))  # more than there are
        101
    """
    count = collapse_count(total=total, weight_decay=weight_decay, loss=loss)
    if math.isinf(count):
        raise ValueError(
            "`total` and `weight_decay` must give a finite count; got "
            f"total={total!r} and {weight_decay!r}. Every class collapses."
        )
    # At the count itself a class collapses, so the rounding of its logarithm must not
    # take an integer down.
    return math.floor(count * (1 + 256 * EPS)) + 1


def _log_multiplier(decay: Decay) -> float:
    logs = math.fsum(map(math.log, (*decay.layers, decay.features)))
    return logs / (decay.depth + 1)


def _sharpness(loss: CrossEntropy | MSE | str, decay: Decay) -> float:
    """Return the share of the own class in its target."""
    if isinstance(loss, str):
        one_of("loss", loss, ("cross_entropy", "mse"))
        loss = MSE() if loss == "mse" else CrossEntropy()
    if isinstance(loss, MSE):
        return 1.0
    if decay.depth > 1:
        raise ValueError(
            "`weight_decay` must have one layer for the cross-entropy; got "
            f"{decay.depth} layers, for which no threshold is known. "
            'Use `loss="mse"`, or multiply the layers out.'
        )
    if not loss.plain:
        raise ValueError(
            "`loss` must treat all classes alike; got scales, offsets or margins per "
            "class. Solve the `PeeledProblem` instead."
        )
    return 1 - loss.smoothing
