r"""The imbalance ratios at which minority classes merge, and at which they vanish.

Fang et al. prove that minority classifiers merge as :math:`R \to \infty` and observe
that they do so at a finite ratio. That ratio has an exact form: where the spread
:math:`\beta` of the minority logits is zero, the own-group softmax probabilities are
equal, so :math:`\partial \ell_B / \partial \beta = -(1 - 1/K_B)` whatever else holds,
and :math:`\beta = 0` is optimal exactly when :math:`\pi_B \leq \mu`, the multiplier of
the norm budget. Setting :math:`\pi_B = \mu` in the optimality conditions leaves one
free scalar :math:`s`, the margin of a minority class over a majority class.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | model and the phenomenon
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy.optimize import brentq

from layerpeel._checks import at_least, listed, positive
from layerpeel._tolerances import EPS
from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy
from layerpeel.program.pairs.decay_collapse import log_decay_collapse
from layerpeel.program.pairs.log_mix import log_mix


def collapse_threshold(
    *,
    majority: int,
    minority: int,
    energy: Energy | Sequence[float] | None = None,
    weight_decay: Decay | Sequence[float] | None = None,
    total: float | None = None,
    majority_samples: float | None = None,
    minority_samples: float | None = None,
    log: bool = False,
) -> float:
    r"""Return the ratio :math:`R_0` from which all minority classifiers are equal.

    With :math:`K_A` majority and :math:`K_B \geq 2` minority classes, and
    :math:`R = n_A / n_B`, minority classifiers are equal exactly when
    :math:`R \geq R_0`.

    **With budgets**, ``energy``, the Layer-Peeled Model has for the :math:`s > 0` that
    solves :math:`\tau(s) = K \sqrt{E_W E_H}`

    .. math::
        \nu &= s K_B (K_A + K_B e^s) / K , \qquad
        \sin\theta = \sqrt{K K_A} / (K_A + K_B e^s) , \qquad
        \rho = \cos\theta / \sqrt{K K_B} , \\
        \alpha &= \nu \sqrt{K / K_B} \cos\theta
                  - K_A \log \frac{1 - K_B \rho}{K_A \rho} , \qquad
        \tau = (K_A - 1) \alpha + \nu , \\
        R_0 &= \left[ K_A - 1 + K_B \rho + (1 - K_B \rho) e^\alpha \right] / K_A .

    The threshold grows exponentially with :math:`\sqrt{E_W E_H}`, so small differences
    between measured energies move it far: report ``log=True`` as well.

    **With penalties**, ``weight_decay``, the unconstrained-features model of one layer
    has, for :math:`\mu = \sqrt{\lambda_W \lambda_H}` and decay per sample,

    .. math::
        R_0 = \frac{1 / (\mu \sqrt{n_B}) - K_B}{K_A} \; (n_B \text{ fixed}) , \qquad
        R_0 = \frac{1 / (\mu^2 N) - K_B}{K_A} \; (N \text{ fixed}) ,

    and, with :math:`n_A` fixed, the larger root of
    :math:`(K_A R + K_B)^2 = R / (\mu^2 n_A)`; say which number stays fixed by giving it.
    With decay per class, :math:`R_0 = (1 / \mu - K_B) / K_A` and nothing else matters.
    It is 1 where the decay is so strong that minority classifiers are equal at every
    ratio. With :math:`n_A` fixed, ratios at or below the *smaller* root,
    :math:`(K_B / K_A)^2 / R_0`, collapse as well: fewer samples in all weaken the decay
    against the loss. The squared error has the same thresholds: there, minority
    classifiers are zero.

    A single minority class has no other to merge with: its threshold is infinite.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
        | model with budgets, and that a finite ratio is observed; the formula is
        | derived here
        | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
        | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the
        | model with penalties

    Args:
        majority: The number of majority classes :math:`K_A \geq 1`.
        minority: The number of minority classes :math:`K_B \geq 1`.
        energy: The energies :math:`(E_W, E_H)`, per class.
        weight_decay: Instead, the decays :math:`(\lambda_W, \lambda_H)`.
        total: The number :math:`N` of all samples, where it stays fixed.
        majority_samples: The number :math:`n_A` of each majority class, where it does.
        minority_samples: The number :math:`n_B` of each minority class, where it does.
        log: Return :math:`\log R_0`, which does not overflow.

    Returns:
        :math:`R_0 \geq 1`, or its logarithm; infinite where it overflows.

    Raises:
        ValueError: If a number of classes is below one, an energy, decay or number of
            samples is not finite and above zero, not exactly one of ``energy`` and
            ``weight_decay`` is given, the energy is per sample, the decay has several
            layers, or it is per sample and not exactly one number of samples is given.

    Example:
        >>> round(collapse_threshold(majority=5, minority=5, energy=(1.0, 5.0)), 3)
        12.192
        >>> round(collapse_threshold(majority=7, minority=3, energy=(1.0, 5.0)), 4)
        4.0005
        >>> decay = {"weight_decay": (5e-4, 1e-3), "minority_samples": 50}
        >>> round(collapse_threshold(majority=5, minority=5, **decay), 3)
        39.0
    """
    K_A, K_B = _checked_sizes(majority, minority)
    samples = {
        "total": total,
        "majority_samples": majority_samples,
        "minority_samples": minority_samples,
    }
    given = {name: positive(name, n) for name, n in samples.items() if n is not None}
    if energy is not None and weight_decay is None:
        _refuse_samples(given, "`energy`")
        tau = Energy.per_class(energy, "the threshold").nuclear_norm(K_A + K_B)
        value = log_collapse_threshold(K_A, K_B, tau)
    elif weight_decay is not None and energy is None:
        value = _log_decay_threshold(K_A, K_B, Decay.of(weight_decay), given)
    else:
        raise ValueError(
            "Exactly one of `energy` (budgets) and `weight_decay` (penalties) must be "
            f"given; got energy={energy!r} and weight_decay={weight_decay!r}."
        )
    return value if log else exp_or_inf(value)


def _log_decay_threshold(
    K_A: int, K_B: int, decay: Decay, samples: Mapping[str, float]
) -> float:
    if decay.depth > 1:
        raise ValueError(
            "`weight_decay` must have one layer; got "
            f"{decay.depth} layers, for which no threshold is known."
        )
    if decay.per == "class":
        _refuse_samples(samples, "a decay per class")
    elif len(samples) != 1:
        raise ValueError(
            "A decay per sample needs exactly one of `total`, `majority_samples` and "
            "`minority_samples`, the one that stays fixed while the ratio grows; got "
            f"{listed(list(samples)) or 'none'}."
        )
    return math.inf if K_B == 1 else log_decay_collapse(K_A, K_B, decay, **samples)


def _refuse_samples(samples: Mapping[str, float], what: str) -> None:
    if samples:
        raise ValueError(
            f"With {what} the threshold depends on no number of samples; got "
            f"{listed(list(samples))}. Leave it out."
        )


def vanishing_threshold(
    *, majority: int, minority: int, energy: Energy | Sequence[float]
) -> float:
    r"""Return the ratio :math:`R_1` from which the minority classifiers are zero.

    When :math:`\tau = K \sqrt{E_W E_H} \leq K_A (K_A - 1) \log(1 + \sqrt{K / K_B})`,
    minority classifiers and features are exactly zero for :math:`R \geq R_1`; with
    :math:`\alpha = \tau / (K_A - 1)`, :math:`y = \alpha (K_A - 1) / K_A` and
    :math:`D = 1 + (K_A - 1) e^{-\alpha} + K_B e^{-y}`,

    .. math::
        R_1^{-2} = \frac{K}{K_A} \,
            \frac{(K_A e^{-\alpha} + K_B e^{-y})^2 - K K_B e^{-2y}}{D^2} .

    For larger energies, and for a single majority class, they never vanish.

    Args:
        majority: The number of majority classes :math:`K_A \geq 1`.
        minority: The number of minority classes :math:`K_B \geq 1`.
        energy: The energies :math:`(E_W, E_H)`, per class.

    Returns:
        :math:`R_1 > 1`, or infinity.

    Raises:
        ValueError: If a number of classes is below one, an energy is not finite and
            above zero, or the features' energy is per sample.

    Example:
        >>> round(vanishing_threshold(majority=7, minority=3, energy=(1.0, 5.0)), 4)
        5.7053
        >>> vanishing_threshold(majority=5, minority=5, energy=(1.0, 5.0))
        inf
    """
    K_A, K_B = _checked_sizes(majority, minority)
    tau = Energy.per_class(energy, "the threshold").nuclear_norm(K_A + K_B)
    return exp_or_inf(log_vanishing_threshold(K_A, K_B, tau))


def log_collapse_threshold(majority: int, minority: int, tau: float) -> float:
    """Return the logarithm of the collapse threshold at a nuclear-norm budget."""
    if minority == 1:
        return math.inf
    # tau(s) >= s K_B, and >= s K_B^2 e^s / K: both bound the root from above.
    K = majority + minority
    steep = max(1.0, math.log(K) + math.log(tau) - 2 * math.log(minority))
    largest = min(tau / minority, steep) * (1 + 8 * EPS)
    s = brentq(
        lambda s: _collapse_curve(majority, minority, s)[0] / tau - 1,
        0.0,
        largest,
        xtol=1e-300,
        rtol=8 * EPS,
    )
    _, alpha, share = _collapse_curve(majority, minority, s)
    return log_mix(math, alpha, share)  # R0 = 1 + share (e^alpha - 1)


def _collapse_curve(K_A: int, K_B: int, s: float) -> tuple[float, float, float]:
    r"""Return :math:`\tau`, :math:`\alpha` and :math:`(1 - K_B \rho) / K_A` at ``s``.

    With :math:`\theta_0` the angle at :math:`s = 0`, where all logits are zero, the
    logarithm in :math:`\alpha` is that of :math:`1 + e` with
    :math:`e = (1/\cos\theta - 1/\cos\theta_0) \sqrt{K K_B} / K_A`, and the difference
    is taken by hand: tiny energies keep all their digits.
    """
    K = K_A + K_B
    growth = K_B * math.expm1(s)
    turn = K_A / K * (growth / (K + growth)) * (1 + K / (K + growth))
    cos, cos0 = math.sqrt(K_B / K + turn), math.sqrt(K_B / K)
    excess = -math.sqrt(K * K_B) / K_A * turn / (cos * cos0 * (cos + cos0))
    nu = s * K_B * (K + growth) / K
    alpha = nu * math.sqrt(K / K_B) * cos - K_A * math.log1p(excess)
    return (K_A - 1) * alpha + nu, alpha, (1 - cos * cos0) / K_A


def log_vanishing_threshold(majority: int, minority: int, tau: float) -> float:
    """Return the logarithm of the vanishing threshold at a nuclear-norm budget."""
    K_A, K_B, K = majority, minority, majority + minority
    if tau >= K_A * (K_A - 1) * math.log1p(math.sqrt(K / K_B)):
        return math.inf
    alpha = tau / (K_A - 1)
    y = alpha * (K_A - 1) / K_A
    # In differences to zero logits: the formula itself cancels for tiny energies.
    fall = math.expm1(-alpha / K_A)
    bracket = fall * (2 + K_A / K * fall)
    if bracket <= -1:  # tau at the bound, up to rounding
        return math.inf
    if y < 1:
        log_mean = math.log1p((math.expm1(y) + (K_A - 1) * fall) / K)
    else:
        rest = math.exp(-y) * (K + (K_A - 1) * fall) - math.expm1(-y)
        log_mean = y + math.log(rest / K)
    return log_mean - 0.5 * math.log1p(bracket)


def _checked_sizes(majority: int, minority: int) -> tuple[int, int]:
    return at_least("majority", majority, 1), at_least("minority", minority, 1)


def exp_or_inf(value: float) -> float:
    """Return the exponential, infinite where it overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
