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
from collections.abc import Sequence

from scipy.optimize import brentq

from layerpeel._checks import at_least
from layerpeel._tolerances import EPS
from layerpeel.program.energy import Energy


def collapse_threshold(
    *,
    majority: int,
    minority: int,
    energy: Energy | Sequence[float],
    log: bool = False,
) -> float:
    r"""Return the ratio :math:`R_0` from which all minority classifiers are equal.

    With :math:`K_A` majority and :math:`K_B \geq 2` minority classes, and
    :math:`R = n_A / n_B`, the minority classifiers of the Layer-Peeled Model are equal
    exactly when :math:`R \geq R_0`, where for the :math:`s > 0` that solves
    :math:`\tau(s) = K \sqrt{E_W E_H}`

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

    A single minority class has no other to merge with: its threshold is infinite.

    Args:
        majority: The number of majority classes :math:`K_A \geq 1`.
        minority: The number of minority classes :math:`K_B \geq 1`.
        energy: The energies :math:`(E_W, E_H)`.
        log: Return :math:`\log R_0`, which does not overflow.

    Returns:
        :math:`R_0 > 1`, or its logarithm; infinite where it overflows.

    Raises:
        ValueError: If a number of classes is below one, or an energy is not finite and
            above zero.

    Example:
        >>> round(collapse_threshold(majority=5, minority=5, energy=(1.0, 5.0)), 3)
        12.192
        >>> round(collapse_threshold(majority=7, minority=3, energy=(1.0, 5.0)), 4)
        4.0005
    """
    value = log_collapse_threshold(*_checked(majority, minority, energy))
    return value if log else exp_or_inf(value)


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
        energy: The energies :math:`(E_W, E_H)`.

    Returns:
        :math:`R_1 > 1`, or infinity.

    Raises:
        ValueError: If a number of classes is below one, or an energy is not finite and
            above zero.

    Example:
        >>> round(vanishing_threshold(majority=7, minority=3, energy=(1.0, 5.0)), 4)
        5.7053
        >>> vanishing_threshold(majority=5, minority=5, energy=(1.0, 5.0))
        inf
    """
    return exp_or_inf(log_vanishing_threshold(*_checked(majority, minority, energy)))


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
    # R0 = 1 + share (e^alpha - 1), by expm1 while R0 - 1 may be small.
    if alpha < 1:
        return math.log1p(share * math.expm1(alpha))
    return alpha + math.log(share + (1 - share) * math.exp(-alpha))


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
    if tau > K_A * (K_A - 1) * math.log1p(math.sqrt(K / K_B)):
        return math.inf
    alpha = tau / (K_A - 1)
    y = alpha * (K_A - 1) / K_A
    log_D = math.log(1 + (K_A - 1) * math.exp(-alpha) + K_B * math.exp(-y))
    # The bracket of the formula without its factor exp(-2 y).
    bracket = (K_A * math.exp(-alpha / K_A) + K_B) ** 2 - K * K_B
    if bracket <= 0:  # tau at the bound, up to rounding
        return math.inf
    return y + log_D - 0.5 * math.log(K / K_A * bracket)


def _checked(
    majority: int, minority: int, energy: Energy | Sequence[float]
) -> tuple[int, int, float]:
    """Return both numbers of classes and the nuclear-norm budget."""
    K_A = at_least("majority", majority, 1)
    K_B = at_least("minority", minority, 1)
    return K_A, K_B, Energy.of(energy).nuclear_norm(K_A + K_B)


def exp_or_inf(value: float) -> float:
    """Return the exponential, infinite where it overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
