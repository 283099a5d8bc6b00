import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from layerpeel.program.closed.shrinkage import (
    ShrinkageProgram,
    log_critical,
    penalised_residuals,
)
from tests.program.closed.programs import budget, penalty, vector


def objective(z, kappa, depth):
    return 0.5 * (1 - z) ** 2 + (depth + 1) / 2 * kappa * z ** (2 / (depth + 1))


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 40])
def test_residuals_are_the_best_of_a_grid(depth):
    grid = np.concatenate([[0.0], np.geomspace(1e-12, 1, 20001)])
    critical = math.exp(log_critical(depth))
    kappas = np.concatenate(
        [np.geomspace(1e-6, 3, 41), critical * np.array([0.98, 0.999, 1.001, 1.02])]
    )
    residuals = penalised_residuals(vector(np.log(kappas)), depth)
    for kappa, residual in zip(kappas, residuals.tolist(), strict=True):
        values = objective(grid, kappa, depth)
        best = grid[values.argmin()]
        assert 1 - residual == pytest.approx(best, abs=2e-3)
        assert objective(1 - residual, kappa, depth) <= values.min() * (1 + 1e-12)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("log_kappa", [-600.0, -200.0, -30.0, -8.0, -2.5])
def test_tiny_residuals_keep_their_digits(depth, log_kappa):
    power = (depth - 1) / (depth + 1)
    residual = float(penalised_residuals(vector([log_kappa]), depth))
    root = brentq(
        lambda x: x + power * math.log1p(-math.exp(x)) - log_kappa,
        log_kappa - 1e-9,
        -math.log(depth) - 1e-12 if depth > 1 else -1e-12,
        xtol=1e-14,
        rtol=1e-15,
    )
    assert math.log(residual) == pytest.approx(root, rel=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_jumps_to_a_definite_fraction(depth):
    # From z = (M - 1) / M to zero, though a positive root goes on existing.
    critical = log_critical(depth)
    before, after = penalised_residuals(vector([critical - 1e-9, critical]), depth)
    assert float(1 - before) == pytest.approx((depth - 1) / depth, rel=1e-6)
    assert float(1 - after) == 0
    power = (depth - 1) / (depth + 1)
    highest = power / (1 + power)
    assert math.log((1 - highest) * highest**power) > critical + 0.05


def test_transition_is_continuous_for_one_layer():
    residuals = penalised_residuals(vector(np.log([0.999, 1.0, 1.001])), 1)
    np.testing.assert_allclose(residuals, [0.999, 1.0, 1.0], rtol=1e-14)


@pytest.mark.parametrize("tau", [1e-9, 0.3, 2.0, 5.0, 50.0])
def test_budget_agrees_with_an_interior_point_method(tau):
    generator = np.random.default_rng(2)
    weights, targets = generator.uniform(0.1, 1, 6), generator.uniform(0.5, 3, 6)
    z = cp.Variable(6, nonneg=True)
    loss = 0.5 * cp.sum(cp.multiply(weights, cp.square(1 - z)))
    problem = cp.Problem(cp.Minimize(loss), [targets @ z <= tau])
    problem.solve(solver=cp.CLARABEL)
    program = ShrinkageProgram(vector(weights), vector(targets), 6)
    solution = program.solve(budget(tau))
    np.testing.assert_allclose(solution.fractions, z.value, atol=1e-6)
    assert solution.certificate.objective == pytest.approx(problem.value, abs=1e-8)
    assert solution.certificate.gap < 1e-12
    assert solution.proved


def test_enough_budget_leaves_no_loss():
    program = ShrinkageProgram(vector([0.5, 0.5]), vector([1.0, 2.0]), 2)
    for tau in (3.0, 1e6):
        solution = program.solve(budget(tau))
        assert solution.fractions.tolist() == [1.0, 1.0]
        assert solution.certificate.objective == 0
        assert solution.certificate.lower_bound == 0
        assert solution.certificate.absolute_gap == 0


def test_almost_enough_budget_keeps_its_digits():
    program = ShrinkageProgram(vector([0.5, 0.5]), vector([1.0, 1.0]), 2)
    lacking = 2.0**-40
    solution = program.solve(budget(2 - lacking))
    assert solution.certificate.objective == pytest.approx(lacking**2 / 8, rel=1e-13)
    assert solution.certificate.gap < 1e-12


def test_width_keeps_what_gains_most():
    weights, targets = vector([0.1, 0.4, 0.4, 0.1]), vector([1.0, 2.0, 2.0, 1.0])
    for width, kept in [(1, [1]), (2, [1, 2]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])]:
        for regulariser in (penalty(1e-3), penalty(1e-3, 3), budget(5.0)):
            program = ShrinkageProgram(weights, targets, width)
            solution = program.solve(regulariser)
            assert solution.kept.nonzero().flatten().tolist() == kept
            assert solution.proved


def test_narrow_budget_is_not_called_proved():
    # With equal targets and unequal weights, the trace inequality does not apply.
    program = ShrinkageProgram(vector([0.5, 0.3, 0.2]), vector([1.0, 1.0, 1.0]), 2)
    solution = program.solve(budget(2.5))
    assert not solution.proved
    assert solution.kept.tolist() == [True, True, False]
    assert solution.certificate.objective == pytest.approx(0.1)
    full = ShrinkageProgram(program.weights, program.targets, 3).solve(budget(2.5))
    assert solution.certificate.lower_bound == pytest.approx(
        full.certificate.lower_bound, rel=1e-12
    )


@given(
    log_c=st.floats(-60, 3),
    depth=st.integers(1, 5),
    width=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_bound_holds_at_random_fractions(log_c, depth, width, seed):
    generator = np.random.default_rng(seed)
    weights, targets = np.exp(generator.uniform(-3, 3, (2, 6)))
    program = ShrinkageProgram(vector(weights), vector(targets), width)
    certificate = program.solve(penalty(math.exp(log_c), depth)).certificate
    assert 0 <= certificate.gap < 1e-13
    z = generator.uniform(0, 1.2, 6) * (np.arange(6) < width)
    z = generator.permutation(z)
    kappa = math.exp(log_c) * targets ** (2 / (depth + 1)) / weights
    assert certificate.lower_bound <= weights @ objective(z, kappa, depth) * (1 + 1e-13)
    assert torch.isfinite(torch.tensor(certificate.objective))
