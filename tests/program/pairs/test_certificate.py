import math
from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.pairs.batch import TwoGroupBatch
from layerpeel.program.pairs.certificate import (
    certify_two_groups,
    relative_gaps,
)
from layerpeel.program.pairs.dual_path import solve_two_groups
from layerpeel.program.pairs.two_groups import TwoGroupLogits, TwoGroups
from tests.program.layer_peeled_reference import counts_of, lower_bound, objective
from tests.program.pairs.reference import log_objective, polish

sizes = st.integers(1, 30)


def within(program, shares, theta, spent):
    """Any group-symmetric logits, of a share of the budget."""
    K_A, K_B = program.majority, program.minority
    parts = np.array(shares) * [K_A > 1, K_B > 1, True]
    alpha, beta, rho = spent * program.tau * parts / parts.sum()
    return TwoGroupLogits(
        program,
        alpha / max(K_A - 1, 1),
        beta / max(K_B - 1, 1),
        rho,
        math.cos(theta),
        math.sin(theta),
    )


@settings(max_examples=60, deadline=None)
@given(
    majority=sizes,
    minority=sizes,
    log_ratio=st.floats(1e-12, 20),
    scale=st.floats(1e-3, 30),
    shares=st.tuples(*[st.floats(0.01, 1)] * 3),
    theta=st.floats(0.01, math.pi / 2 - 0.01),
    spent=st.floats(0.1, 1.0),
)
def test_never_exceeds_the_optimum(
    majority, minority, log_ratio, scale, shares, theta, spent
):
    program = TwoGroups(majority, minority, log_ratio, (majority + minority) * scale)
    logits = within(program, shares, theta, spent)
    certificate, log_value = certify_two_groups(logits)
    best = solve_two_groups(program)
    _, log_best = certify_two_groups(best)
    assert log_value >= log_best - 1e-12
    assert 0 <= certificate.gap <= 1
    assert certificate.gap >= -math.expm1(log_best - log_value) - 1e-12


@settings(max_examples=40, deadline=None)
@given(
    majority=st.integers(1, 6),
    minority=st.integers(1, 6),
    log_ratio=st.floats(0.01, 7),
    scale=st.floats(1e-2, 4),
    nudge=st.floats(-1e-2, 1e-2),
)
def test_is_at_most_a_few_times_the_dense_gap_near_the_optimum(
    majority, minority, log_ratio, scale, nudge
):
    program = TwoGroups(majority, minority, log_ratio, (majority + minority) * scale)
    logits = solve_two_groups(program)
    logits = replace(logits, rho=logits.rho * (1 + nudge)).scaled_to(program.tau, 0)
    matrix = logits.spectrum(
        tuple(range(majority)), tuple(range(majority, majority + minority))
    ).matrix
    counts = counts_of(majority, minority, math.exp(log_ratio))
    value = objective(matrix, counts)
    certificate, log_value = certify_two_groups(logits)
    assert log_value == pytest.approx(math.log(value), abs=1e-12)
    dense = 1 - lower_bound(matrix, counts, program.tau) / value
    assert certificate.gap <= 2 * dense + 1e-10


EXTREMES = [
    # K_A, K_B, log R, sqrt(E_W E_H), relative change of alpha
    (3, 7, 1.0, 1e6, 1e-12),
    (3, 7, 1.0, 1e4, 1e-7),
    (100, 37, 20.0, 1e5, 1e-9),
    (7, 3, 1.5, 1e3, 1e-6),
    (5, 5, 1.0, 3.0, 1e-3),
    (2, 2, 1e-3, 1e6, 1e-11),
]


@pytest.mark.parametrize("case", EXTREMES, ids=str)
def test_is_close_to_the_true_suboptimality_at_huge_energies(case):
    K_A, K_B, log_ratio, scale, nudge = case
    program = TwoGroups(K_A, K_B, log_ratio, (K_A + K_B) * scale)
    best = solve_two_groups(program)
    *scalars, _ = polish(best)
    moved = replace(best, alpha=best.alpha * (1 + nudge))
    moved = moved.scaled_to(program.tau, 0)
    # The true value of the logits, scaled to spend the budget exactly.
    spend = (K_A - 1) * mp.mpf(moved.alpha) + (K_B - 1) * mp.mpf(moved.beta)
    grow = mp.mpf(program.tau) / (spend + mp.mpf(moved.rho))
    rho = mp.mpf(moved.rho) * grow / mp.hypot(moved.cos, moved.sin)
    value = log_objective(
        program,
        moved.alpha * grow,
        moved.beta * grow,
        rho * moved.cos,
        rho * moved.sin,
    )
    excess = float(-mp.expm1(log_objective(program, *scalars) - value))
    certificate, log_value = certify_two_groups(moved)
    assert 0 < excess <= certificate.gap <= 10 * excess
    # Rounding the logits moves the objective by this much, relatively.
    assert log_value == pytest.approx(float(value), rel=1e-15, abs=1e-12)


def test_logits_that_do_not_spend_the_budget_have_a_gap():
    program = TwoGroups(5, 5, 1.0, 20.0)
    best = solve_two_groups(program)
    spent = certify_two_groups(replace(best, program=replace(program, tau=20.2)))[0]
    assert 0.01 < spent.gap < 0.1
    # More than the budget is no solution at all.
    over = certify_two_groups(replace(best, program=replace(program, tau=19.8)))[0]
    assert over.gap == 1.0


def test_is_finite_where_the_objective_underflows():
    logits = solve_two_groups(TwoGroups(5, 5, 1.0, 1e6))
    certificate, value = certify_two_groups(logits)
    assert certificate.objective == certificate.lower_bound == 0.0
    assert value < -1e5
    assert certificate.gap < 1e-15


def test_cells_do_not_influence_one_another():
    cells = [solve_two_groups(TwoGroups(3, 4, r, 7.0)) for r in (0.1, 1.0, 9.0)]
    cells[1] = replace(cells[1], alpha=1.1 * cells[1].alpha).scaled_to(7.0, 0)
    values = np.array([[c.program.log_ratio, 7.0, *c.scalars] for c in cells])
    gaps, log_values = relative_gaps(TwoGroupBatch(3, 4, *values.T.copy()))
    for gap, value, cell in zip(gaps, log_values, cells, strict=True):
        single, log_value = certify_two_groups(cell)
        assert gap == pytest.approx(single.gap, rel=1e-12, abs=1e-25)
        assert value == pytest.approx(log_value, rel=1e-14)
