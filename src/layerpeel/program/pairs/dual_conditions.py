r"""The stationary logits of two groups, explicit in a multiplier and an angle.

Write :math:`\mu` for the multiplier of the norm budget, :math:`x_g = \log(\pi_g / \mu)`,
and measure the angle :math:`\theta` of :class:`TwoGroups` from where it is at zero
logits, :math:`\tan\theta = \sqrt{K_A / K_B} \, e^t`. **Given** :math:`\mu` **and**
:math:`t` **all scalars are explicit.** With
:math:`\lambda(h, c) = \log(1 + c (e^h - 1))`, a group of :math:`m` classes against
:math:`o` others, seen under the angle :math:`\omega`, has

.. math::
    \omega_A &= \tfrac12 \lambda(2 t, K_A / K) = -\log(\cos\theta \sqrt{K / K_B}) , \\
    \omega_B &= \tfrac12 \lambda(-2 t, K_B / K) = -\log(\sin\theta \sqrt{K / K_A}) , \\
    \text{spread} &= \lambda\left(x^+, \frac{m K}{K - o e^{-\omega}}\right) , \qquad
    \rho = e^\omega \left[ \text{spread} + m \,
        \lambda\left(x^- + \omega, \frac{K}{m}\right) \right] ,

where :math:`x^+` and :math:`x^-` are the positive and the negative part of :math:`x_g`;
for a single class, which has no spread, :math:`x^-` is all of it. This is stationarity
in the spread and in the logits between the groups. Collapse needs no test: the spread
is zero where :math:`x_g \leq 0`.

Two conditions are left: both groups must mean the same :math:`\rho`, and the norm must
be the budget. As the program is convex, logits that satisfy both with
:math:`\rho \geq 0` are optimal.

Nothing here cancels: where the logits are tiny, so are :math:`x`, :math:`t` and
:math:`\omega`, and where they are huge, these are logarithms of probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Generic

from layerpeel.program.pairs.log_mix import Reals, log_mix


@dataclass(frozen=True, eq=False)
class Side(Generic[Reals]):
    r"""What a group says about the logits, and how that changes.

    Attributes:
        spread: The spread within the group.
        between: :math:`\rho e^{-\omega}` as the group sees it.
        spread_x: Derivative of the spread in :math:`x`.
        spread_t: Derivative of the spread in :math:`t`.
        between_x: Derivative of ``between`` in :math:`x`.
        between_t: Derivative of ``between`` in :math:`t`.
    """

    spread: Reals
    between: Reals
    spread_x: Reals
    spread_t: Reals
    between_x: Reals
    between_t: Reals


@dataclass(frozen=True, eq=False)
class State(Generic[Reals]):
    """Both groups at one multiplier and one angle.

    Attributes:
        A: What the majority says.
        B: What the minority says.
        cos: Cosine of the angle.
        sin: Sine of it.
    """

    A: Side[Reals]
    B: Side[Reals]
    cos: Reals
    sin: Reals


def state_at(
    xp: ModuleType, sizes: tuple[int, int], x_A: Reals, x_B: Reals, t: Reals
) -> State[Reals]:
    """Return what both groups say.

    Args:
        xp: ``math`` for numbers, ``numpy`` for arrays.
        sizes: The numbers of majority and minority classes.
        x_A: The multiplier, seen from the majority.
        x_B: The same from the minority, less by the logarithm of the ratio. Whichever is
            small and positive has to have all its digits.
        t: The angle.
    """
    K_A, K_B = sizes
    turn_A, turn_B = turns(xp, sizes, t)
    cos, sin = cos_sin(xp, sizes, turn_A, turn_B)
    return State(
        _side(xp, K_A, K_B, x_A, turn_A, sin * sin),
        _side(xp, K_B, K_A, x_B, turn_B, -cos * cos),
        cos,
        sin,
    )


def turns(xp: ModuleType, sizes: tuple[int, int], t: Reals) -> tuple[Reals, Reals]:
    r"""Return :math:`\omega_A` and :math:`\omega_B`."""
    K_A, K_B = sizes
    K = K_A + K_B
    return 0.5 * log_mix(xp, 2 * t, K_A / K), 0.5 * log_mix(xp, -2 * t, K_B / K)


def cos_sin(
    xp: ModuleType, sizes: tuple[int, int], turn_A: Reals, turn_B: Reals
) -> tuple[Reals, Reals]:
    """Return cosine and sine of the angle, both to full precision."""
    K_A, K_B = sizes
    cos: Reals = math.sqrt(K_B / (K_A + K_B)) * xp.exp(-turn_A)
    sin: Reals = math.sqrt(K_A / (K_A + K_B)) * xp.exp(-turn_B)
    return cos, sin


def _side(
    xp: ModuleType, m: int, o: int, x: Reals, turn: Reals, slope: Reals
) -> Side[Reals]:
    """Return what a group says; ``slope`` is the derivative of its turn in the angle."""
    K = m + o
    rest = (x < 0) * x if m > 1 else x
    spread = spread_x = spread_t = 0.0 * x
    if m > 1:
        own = (m - o * xp.expm1(-turn)) / (m * K)
        spread = log_mix(xp, x - rest, 1 / own)
        growth = xp.exp(x - rest - spread) / own
        spread_x = (x > 0) * growth
        own_t = o / (m * K) * xp.exp(-turn) * slope
        spread_t = growth * xp.expm1(rest - x) / own * own_t
    logarithm = log_mix(xp, turn + rest, K / m)
    rise = K * xp.exp(turn + rest - logarithm)
    return Side(
        spread,
        spread + m * logarithm,
        spread_x,
        spread_t,
        spread_x + (rise * (x < 0) if m > 1 else rise),
        spread_t + rise * slope,
    )


def singular_value(sizes: tuple[int, int], state: State[Reals]) -> Reals:
    r"""Return :math:`\rho`, exact where both groups mean the same."""
    p, q = _shares(sizes, state)
    rho: Reals = state.A.between * p + state.B.between * q
    return rho


def nuclear_norm(sizes: tuple[int, int], state: State[Reals]) -> Reals:
    """Return the nuclear norm of the logits."""
    spread = (sizes[0] - 1) * state.A.spread + (sizes[1] - 1) * state.B.spread
    return spread + singular_value(sizes, state)


def disagreement(xp: ModuleType, state: State[Reals], t: Reals) -> Reals:
    r"""Return zero where both groups mean the same :math:`\rho`; increasing in t."""
    half = xp.exp(0.5 * t)
    difference: Reals = state.A.between * half - state.B.between / half
    return difference


def violation(
    xp: ModuleType, sizes: tuple[int, int], state: State[Reals], t: Reals, tau: Reals
) -> Reals:
    """Return by how much the two conditions are missed, relatively, in all."""
    half = xp.exp(0.5 * t)
    apart = disagreement(xp, state, t) / (state.A.between * half)
    over = nuclear_norm(sizes, state) / tau - 1
    missed: Reals = abs(apart) + abs(over)
    return missed


def newton_step(
    xp: ModuleType, sizes: tuple[int, int], state: State[Reals], t: Reals, tau: Reals
) -> tuple[Reals, Reals]:
    """Return Newton's step towards agreement and the budget, in x and t."""
    A, B, half = state.A, state.B, xp.exp(0.5 * t)
    apart = disagreement(xp, state, t)
    apart_x = A.between_x * half - B.between_x / half
    apart_t = (A.between_t + 0.5 * A.between) * half
    apart_t = apart_t - (B.between_t - 0.5 * B.between) / half
    over = nuclear_norm(sizes, state) - tau
    over_x, over_t = _norm_slopes(sizes, state)
    det = over_x * apart_t - over_t * apart_x
    return (
        (over_t * apart - over * apart_t) / det,
        (over * apart_x - over_x * apart) / det,
    )


def _norm_slopes(sizes: tuple[int, int], state: State[Reals]) -> tuple[Reals, Reals]:
    """Return the derivatives of the nuclear norm in x and t."""
    A, B, cos, sin = state.A, state.B, state.cos, state.sin
    p, q = _shares(sizes, state)
    more_A, more_B = sizes[0] - 1, sizes[1] - 1
    within_x = more_A * A.spread_x + more_B * B.spread_x
    within_t = more_A * A.spread_t + more_B * B.spread_t
    turned = A.between * p * sin * sin - B.between * q * cos * cos
    return (
        within_x + A.between_x * p + B.between_x * q,
        within_t + A.between_t * p + B.between_t * q - turned,
    )


def _shares(sizes: tuple[int, int], state: State[Reals]) -> tuple[Reals, Reals]:
    r"""Return what the part of either group counts in :math:`\rho`."""
    K_A, K_B = sizes
    K = K_A + K_B
    return state.cos * math.sqrt(K_B / K), state.sin * math.sqrt(K_A / K)
