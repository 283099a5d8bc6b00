r"""A lower bound for two groups that does not cancel, at any energy.

Weak duality holds for any :math:`Q` whose columns are probabilities. Write
:math:`G = (Q - I) \operatorname{diag}(\pi)`, :math:`P` for the softmax of the logits
:math:`Z`, and :math:`s_i, u_i, v_i` for the singular triples of :math:`Z`. Then
objective minus bound is a sum of terms that are never negative:

.. math::
    \sum_k \pi_k \mathrm{KL}(q_k \| p_k) + \sum_i s_i \left( \|G\|_2 + u_i^\top G v_i
    \right) + \|G\|_2 (\tau - \|Z\|_*) .

Evaluated as such it does not cancel, unlike the difference of two sums of the size of
:math:`\tau \|G\|_2`, which for energies of 1e4 swallows ten digits of a small loss. And
:math:`Q = P` would be too coarse: rounding :math:`Z` alone turns the second sum into
:math:`\varepsilon \tau^2`. Here :math:`Q` is the stationary point of the multiplier
:math:`\mu` that :math:`P` implies on average, with :math:`-u_i^\top G v_i = \mu` and
:math:`\|G\|_2 = \mu` by construction. What is left, :math:`\mathrm{KL}`, is of second
order in the error of the logits.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | convex form
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from layerpeel._tolerances import EPS, RESOLVED_GAP
from layerpeel.program.pairs.batch import Cells, TwoGroupBatch
from layerpeel.program.pairs.two_groups import TwoGroupLogits
from layerpeel.program.solution import Certificate

# A budget that is spent up to these few ulps counts as spent: the logits stand for
# their multiple that spends it exactly, which float64 cannot tell from them.
_SPENT = 8 * EPS


def certify_two_groups(logits: TwoGroupLogits) -> tuple[Certificate, float]:
    """Evaluate the objective and the lower bound at group-symmetric logits.

    Args:
        logits: The logits, of nuclear norm at most the budget.

    Returns:
        The certificate, and the logarithm of the objective, which is finite where the
        objective underflows.
    """
    gaps, log_objectives = relative_gaps(TwoGroupBatch.of(logits))
    gap, log_objective = float(gaps[0]), float(log_objectives[0])
    objective = math.exp(log_objective)
    certificate = Certificate(objective, objective * (1 - gap), scaled_gap=gap)
    return certificate, log_objective


def relative_gaps(batch: TwoGroupBatch) -> tuple[Cells, Cells]:
    r"""Return upper bounds of :math:`1 - f^\star / f`, and :math:`\log f`.

    The divergence is bounded by :math:`\mathrm{KL}(q \| p) \leq \sum (q - p)^2 / p`, at
    most twice as large for close distributions, and free of cancellation.

    Args:
        batch: Logits, of nuclear norms at most the budgets.

    Returns:
        The gaps, at least ``RESOLVED_GAP``, for logits in float64 are no more exact,
        and at most one since no loss is negative; and the logarithms of the objectives.
    """
    with np.errstate(all="ignore"):
        A, B = _columns(batch)
        log_f = np.logaddexp(A.log_mean_loss, B.log_mean_loss)
        mu = _multiplier(batch, A, B, log_f)
        other_A, other_B = _dual_others(batch, A, B, log_f, mu)
        log_mu = np.log(mu) + log_f
        own_A = _own_at(A, log_mu, other_A)
        own_B = np.where(
            batch.beta > 0, _own_at(B, log_mu, other_B), _own_as_all(B, other_B)
        )
        unspent = (batch.tau - batch.nuclear_norm) / batch.tau
        slack = np.where(abs(unspent) > _SPENT, unspent, 0.0)
        gap = A.divergence(own_A, other_A, log_f) + B.divergence(own_B, other_B, log_f)
        gap = gap + mu * batch.tau * slack
        # Whatever is not finite, or infeasible, proves nothing: the bound is zero.
        proved = np.where((slack >= 0) & (gap <= 1), gap, 1.0)
        return np.maximum(proved, RESOLVED_GAP), log_f


@dataclass(frozen=True, eq=False)
class _Column:
    """The softmax column of a class, in logarithms.

    Attributes:
        size: Classes in its group.
        others: Classes in the other group.
        log_pi: Its frequency.
        own: Probability of one other class of its group; meaningless without one.
        other: Probability of one class of the other group.
        loss: The loss itself.
        log_loss: Its logarithm.
    """

    size: int
    others: int
    log_pi: Cells
    own: Cells
    other: Cells
    loss: Cells
    log_loss: Cells

    @property
    def log_mean_loss(self) -> Cells:
        """The part of the group in the objective."""
        return np.asarray(self.log_pi + math.log(self.size) + self.log_loss)

    def divergence(self, own: Cells, other: Cells, log_f: Cells) -> Cells:
        r"""Return the group's :math:`\sum (q - p)^2 / p` in units of the objective."""
        weight = self.log_pi + math.log(self.size) - log_f
        change = np.expm1(other - self.other)
        moved = np.exp(weight + math.log(self.others) + self.other) * change
        total = moved * change
        if self.size > 1:
            change = np.expm1(own - self.own)
            step = np.exp(weight + math.log(self.size - 1) + self.own) * change
            moved, total = moved + step, total + step * change
        # What the others gain, the class itself loses, at most all it has.
        lost = moved * np.exp(self.loss - weight)
        return np.where(lost <= 1, total + moved * lost, np.inf)


def _columns(batch: TwoGroupBatch) -> tuple[_Column, _Column]:
    K_A, K_B = batch.majority, batch.minority
    (pi_A, pi_B), (y, s) = batch.log_frequencies, batch.margins
    return _column(K_A, K_B, pi_A, batch.alpha, y), _column(
        K_B, K_A, pi_B, batch.beta, s
    )


def _column(m: int, o: int, log_pi: Cells, spread: Cells, margin: Cells) -> _Column:
    log_odds = math.log(o) - margin
    if m > 1:
        log_odds = np.logaddexp(log_odds, math.log(m - 1) - spread)
    loss = np.logaddexp(0.0, log_odds)
    # log(log(1 + e^x)) = x where e^x is below half an ulp of 1.
    tiny = log_odds < math.log(EPS / 2)
    log_loss = np.where(tiny, log_odds, np.log(np.maximum(loss, EPS / 4)))
    return _Column(m, o, log_pi, -spread - loss, -margin - loss, loss, log_loss)


def _multiplier(batch: TwoGroupBatch, A: _Column, B: _Column, log_f: Cells) -> Cells:
    r"""Return :math:`-\langle G, Z \rangle / \|Z\|_*` in units of the objective.

    Raised to what a collapsed minority needs: without spread, a change of the spread
    is worth the frequency of a class, which must not exceed the multiplier.
    """
    w_A, w_B = _between(A, log_f), _between(B, log_f)
    inner = batch.rho * (batch.cos * w_A + batch.sin * w_B)
    for column, spread in ((A, batch.alpha), (B, batch.beta)):
        if column.size > 1:
            inner = inner + (column.size - 1) * spread * _within(column, log_f)
    mu = np.asarray(inner / batch.nuclear_norm)
    if B.size == 1:
        return mu
    return np.where(batch.beta > 0, mu, np.maximum(mu, np.exp(B.log_pi - log_f)))


def _within(column: _Column, log_f: Cells) -> Cells:
    """Return the singular value of the gradient within a group."""
    own, other = math.log(column.size) + column.own, math.log(column.others)
    total = np.logaddexp(own, other + column.other)
    return np.asarray(np.exp(column.log_pi - log_f + total))


def _between(column: _Column, log_f: Cells) -> Cells:
    """Return a group's entry of the gradient's singular vector between the groups."""
    scale = math.sqrt(column.others * (column.size + column.others))
    return np.asarray(np.exp(column.log_pi - log_f + column.other) * scale)


def _dual_others(
    batch: TwoGroupBatch, A: _Column, B: _Column, log_f: Cells, mu: Cells
) -> tuple[Cells, Cells]:
    """Return log probabilities of the other group that are stationary in the logits.

    Without logits between the groups, the gradient between them need only be small.
    """
    K, log_mu = batch.num_classes, np.log(mu) + log_f
    stationary = (
        log_mu - A.log_pi + np.log(batch.cos) - 0.5 * math.log(K * batch.minority),
        log_mu - B.log_pi + np.log(batch.sin) - 0.5 * math.log(K * batch.majority),
    )
    norm = np.hypot(_between(A, log_f), _between(B, log_f))
    shrink = np.minimum(0.0, np.log(mu / norm))
    there = batch.rho > 0
    return (
        np.where(there, stationary[0], A.other + shrink),
        np.where(there, stationary[1], B.other + shrink),
    )


def _own_at(column: _Column, log_mu: Cells, other: Cells) -> Cells:
    """Return the log probability of the own group that is stationary in the spread."""
    log_M = log_mu - column.log_pi
    rest = np.log1p(-column.others * np.exp(other - log_M))
    return np.asarray(log_M + rest - math.log(column.size))


def _own_as_all(column: _Column, other: Cells) -> Cells:
    """Return the log probability of the own group when all its classes are alike."""
    rest = np.log1p(-column.others * np.exp(other))
    return np.asarray(rest - math.log(column.size))
