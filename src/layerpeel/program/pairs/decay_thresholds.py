r"""What a growing weight decay does to two groups of classes, in three steps.

In the unconstrained-features model, the loss weight :math:`\pi_g = n_g / N` of a class
stands against the multiplier :math:`\mu = \sqrt{\lambda_W \lambda_H}` times its feature
weight :math:`\delta_g`, which is :math:`\sqrt{n_g}` for decay per sample and one for
decay per class. So only :math:`E_g = \pi_g / \delta_g` matters. As in the Layer-Peeled
Model, the slope of the loss along the minority's spread is
:math:`-(1 - 1/K_B) \pi_B` where that spread is zero, whatever else holds: hence
:math:`\mu \geq E_B` is when minority classifiers are equal.

References:
    | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
    | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the model
    | with two groups
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsFloat

from scipy.optimize import brentq

from layerpeel._checks import one_of
from layerpeel._tolerances import EPS
from layerpeel.program.counts import checked_counts, one_or_two_groups
from layerpeel.program.pairs.log_mix import log_mix
from layerpeel.program.pairs.thresholds import exp_or_inf, log_vanishing_threshold


@dataclass(frozen=True)
class DecayThresholds:
    r"""The products :math:`\lambda_W \lambda_H` at which two groups of classes give way.

    Attributes:
        minority_equal: From here on all minority classifiers are equal, and so are the
            minority's features; infinite for a single minority class.
        minority_zero: From here on they are zero.
        all_zero: From here on everything is.
    """

    minority_equal: float
    minority_zero: float
    all_zero: float


def decay_thresholds(
    class_counts: Iterable[SupportsFloat], *, per: str = "sample"
) -> DecayThresholds:
    r"""Return the weight decays at which minority classes merge and vanish.

    For the cross-entropy, one layer without a bias, decays :math:`\lambda_W` and
    :math:`\lambda_H` on classifiers and features, and
    :math:`E_g = \sqrt{n_g} / N` (decay per sample) or :math:`n_g / N` (per class):
    minority classifiers are equal from :math:`\lambda_W \lambda_H = E_B^2` on, and
    everything is zero from :math:`E_A^2` on. In between, minority features are zero
    from :math:`\mu^2` on, where with
    :math:`y = \alpha (K_A - 1) / K_A` and
    :math:`D = 1 + (K_A - 1) e^{-\alpha} + K_B e^{-y}` the spread :math:`\alpha` solves

    .. math::
        \mu = E_A \frac{K_A e^{-\alpha} + K_B e^{-y}}{D} , \qquad
        \frac{K_B}{K} \left(\frac{E_A K e^{-y}}{D}\right)^2 + \frac{K_A}{K} E_B^2
        = \mu^2 .

    A single majority class has no spread: then the last two thresholds are one,
    :math:`(K_B E_A^2 + K_A E_B^2) / K`. The first holds with any bias too. Balanced
    classes have a single threshold.

    Each is the product that the other decay completes: with :math:`\lambda_H` fixed,
    divide by it.

    References:
        | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
        | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the
        | model and the first threshold, observed numerically; the formulas are derived
        | here

    Args:
        class_counts: Counts with one or two distinct values, with length :math:`K`.
        per: Whether features are penalised per ``"sample"`` or per ``"class"``, as in
            :class:`~layerpeel.program.Decay`.

    Returns:
        The thresholds.

    Raises:
        ValueError: If the counts are invalid or have more than two distinct values, or
            ``per`` is unknown.

    Example:
        >>> thresholds = decay_thresholds([500] * 5 + [50] * 5)
        >>> round(1e6 * thresholds.minority_equal, 3)  # n_B / N^2
        6.612
        >>> round(1e6 * thresholds.minority_zero, 3)
        16.31
        >>> round(1e6 * thresholds.all_zero, 3)  # n_A / N^2
        66.116
    """
    counts = checked_counts(class_counts)
    one_of("per", per, ("sample", "class"))
    groups = one_or_two_groups(counts)
    total = math.fsum(counts)
    power = 0.5 if per == "sample" else 1.0
    log_E = [power * math.log(group.count) - math.log(total) for group in groups]
    if len(groups) == 1:
        return DecayThresholds(*[exp_or_inf(2 * log_E[0])] * 3)
    K_A, K_B = (len(group.classes) for group in groups)
    zero = log_E[0] + _log_vanishing_multiplier(K_A, K_B, log_E[0] - log_E[1])
    return DecayThresholds(
        minority_equal=exp_or_inf(2 * log_E[1]) if K_B > 1 else math.inf,
        minority_zero=exp_or_inf(2 * zero),
        all_zero=exp_or_inf(2 * (log_E[0] if K_A > 1 else zero)),
    )


def _log_vanishing_multiplier(K_A: int, K_B: int, log_ratio: float) -> float:
    r"""Return :math:`\log(\mu / E_A)` where the minority vanishes.

    There the majority is alone, as in the Layer-Peeled Model of the budget that it
    spends: so the ratio :math:`E_A / E_B` is the vanishing threshold of that budget.
    """
    if K_A == 1:
        return 0.5 * log_mix(math, -2 * log_ratio, K_A / (K_A + K_B))

    def excess(tau: float) -> float:
        # From -1 to 1, with all digits at ratios near one and at huge ones.
        threshold = log_vanishing_threshold(K_A, K_B, tau)
        if math.isinf(threshold):
            return 1.0
        return (threshold - log_ratio) / (threshold + log_ratio)

    K = K_A + K_B
    largest = K_A * (K_A - 1) * math.log1p(math.sqrt(K / K_B))
    tau = brentq(excess, 0.0, largest, xtol=1e-300, rtol=4 * EPS)
    alpha = tau / (K_A - 1)
    y = alpha * (K_A - 1) / K_A
    left = K_A * math.exp(-alpha) + K_B * math.exp(-y)
    return math.log(left / (1 + left - math.exp(-alpha)))
