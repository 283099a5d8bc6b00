import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from layerpeel.program.closed import collapse_count, solve_orthogonal_frames
from layerpeel.program.solution import Status
from tests.program.closed.programs import (
    GAP_TOL,
    budget,
    check,
    penalty,
    solve_factors,
    squared_program,
)
from tests.program.reference import cvxpy_solve, make_program

REFERENCE_COUNTS = [200.0, 100.0, 50.0, 50.0]
REFERENCE_NORMS = {
    # depth: squared classifier norms at lambda = 5e-4 everywhere
    1: [13.942, 9.800, 6.871, 6.871],
    3: [52.88, 31.32, 18.50, 18.50],
    6: [93.48, 51.45, 28.25, 28.25],
}


def random_program(seed, depth, width=None, level=None):
    """Weights and feature weights that have nothing to do with each other."""
    generator = np.random.default_rng(seed)
    K = int(generator.integers(2, 5))
    weights = generator.uniform(0.1, 1, K)
    delta = np.exp(generator.uniform(-1, 1, K))
    level = generator.uniform(0.05, 0.4) if level is None else level
    c = level * np.median(weights / delta ** (2 / (depth + 1)))
    width = None if width is None else min(width, K)
    return squared_program(
        weights / weights.sum(), delta, penalty(c, depth), width=width
    )


@pytest.mark.parametrize("depth", REFERENCE_NORMS)
def test_reference_norms(depth):
    program = make_program(
        REFERENCE_COUNTS, loss="mse", decay=(5e-4,) * (depth + 1), width=64
    )
    solution = solve_orthogonal_frames(program, GAP_TOL)
    squares = solution.geometry.classifier_norms**2
    np.testing.assert_allclose(squares, REFERENCE_NORMS[depth], rtol=5e-4)
    gram = solution.geometry.classifier_gram
    assert (gram == torch.diag(gram.diagonal())).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_no_factors_are_better(seed, depth, width):
    # Any depth, any weights, any width: orthogonal frames are globally optimal.
    program = random_program(17 * seed + depth, depth, width)
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-13
    value, logits, _ = solve_factors(program, program.width, starts=6, seed=seed)
    assert value == pytest.approx(solution.objective, rel=1e-8)
    np.testing.assert_allclose(solution.logits, logits, atol=1e-3)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_no_factors_are_better_at_the_jump(depth, factor):
    rare, counts = 6.0, [30.0, 12.0, 6.0]
    total = sum(counts)
    # The decay at which exactly `rare` is the collapse count.
    lam = 1e-3
    count = collapse_count(total=total, weight_decay=(lam,) * (depth + 1), loss="mse")
    lam *= (rare / count * factor) ** (depth / (depth + 1))
    program = make_program(counts, loss="mse", decay=(lam,) * (depth + 1))
    solution = solve_orthogonal_frames(program, GAP_TOL)
    assert (solution.logits[2, 2] == 0) == (factor > 1)
    # With and without room for the rare class: either is a local minimum.
    value = min(
        solve_factors(program, width, starts=4, spread=0.3, centre=1.2)[0]
        for width in (2, 3)
    )
    assert value == pytest.approx(solution.objective, rel=1e-8)


def test_zero_is_better_than_the_published_root():
    # b / n = 0.55 for two layers: a root exists up to 0.65, but zero is better.
    # b = M N (N Lambda)^(1/M), and x = z / (1 - z) to the power 1/M solves
    # b / n = M x^(M-1) / (x^M + 1)^2.
    N, share = 40.0, 0.55
    lam = ((share * N / (2 * N)) ** 2 / N) ** (1 / 3)
    program = squared_program([1.0], [N**0.5], penalty(lam, 2))
    assert solve_orthogonal_frames(program, GAP_TOL).logits.item() == 0

    x = np.roots([1, 0, 2, -2 / share, 1])  # (x^2 + 1)^2 = 2 x / share
    x = x[np.abs(x.imag) < 1e-12].real.max()
    z = x**2 / (1 + x**2)
    sigma = N**0.5 * z
    local = 0.5 * (1 - z) ** 2 + 1.5 * lam * sigma ** (2 / 3)
    assert z == pytest.approx(0.899**2 / (1 + 0.899**2), rel=1e-3)
    assert local > 0.5
    # The root is a local minimum all the same.
    for other in (0.9 * z, 1.1 * z):
        penalised = 1.5 * lam * (N**0.5 * other) ** (2 / 3)
        assert 0.5 * (1 - other) ** 2 + penalised > local


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_fractions_minimise_class_by_class(depth):
    program = random_program(5, depth, level=0.1)
    solution = solve_orthogonal_frames(program, GAP_TOL)
    c = program.regulariser.multiplier
    for k, z in enumerate(solution.logits.diagonal().tolist()):
        weight = float(program.weights[k])
        delta = float(program.feature_weights[k])

        def value(t, weight=weight, delta=delta):
            sigma = t ** (depth + 1)
            loss = weight / 2 * (sigma / delta - 1) ** 2
            return loss + (depth + 1) / 2 * c * t**2

        top = delta ** (1 / (depth + 1))
        best = minimize_scalar(
            value,
            bounds=(0.3 * top, top),
            method="bounded",
            options={"xatol": 1e-10},
        )
        expected = best.x ** (depth + 1) / delta if best.fun < weight / 2 else 0.0
        assert z == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.7, 3.99])
def test_budget_agrees_with_an_interior_point_method(tau):
    program = squared_program([0.5, 0.3, 0.15, 0.05], np.ones(4), budget(tau, 2.0))
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution, rel=1e-8)
    value, logits, _ = cvxpy_solve(program)
    assert solution.objective == pytest.approx(value, abs=1e-7)
    np.testing.assert_allclose(solution.logits, logits, atol=1e-4)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-12


@pytest.mark.parametrize("per", ["sample", "class"])
@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 5.0]])
def test_penalty_agrees_with_an_interior_point_method(per, class_weights):
    program = make_program(
        [7.0, 4.0, 1.0],
        loss="mse",
        decay=(0.02, 0.03),
        per=per,
        class_weights=class_weights,
    )
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution)
    value, logits, _ = cvxpy_solve(program)
    assert solution.objective == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(solution.logits, logits, atol=1e-3)


def test_budget_of_all_targets_is_enough():
    for energy in ((1.0, 1.0), (1e6, 1e6)):
        program = make_program([7.0, 4.0, 1.0], loss="mse", energy=energy)
        solution = solve_orthogonal_frames(program, GAP_TOL)
        assert (solution.logits == torch.eye(3, dtype=torch.float64)).all()
        assert solution.objective == 0
        assert solution.certificate.absolute_gap == 0


def test_narrow_budget_of_unequal_counts_is_not_proved():
    program = make_program([7.0, 4.0, 1.0], loss="mse", energy=(0.9, 0.9), width=2)
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution)
    assert solution.status is Status.STATIONARY
    assert solution.certificate.gap > 0.1
    value, _, _ = solve_factors(program, width=2, starts=6)
    assert value == pytest.approx(solution.objective, rel=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_budget_per_sample_is_solved_at_any_width(width):
    # Weights proportional to the squared feature weights: one isotropic loss.
    counts = np.array([7.0, 4.0, 2.0])
    program = squared_program(
        counts / counts.sum(), np.sqrt(counts), budget(3.0), width=width
    )
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-12
    value, _, _ = solve_factors(program, width=width, starts=3)
    assert value == pytest.approx(solution.objective, rel=1e-7)


@pytest.mark.parametrize("depth", [1, 3])
def test_nonnegative_features_change_nothing(depth):
    case = {"loss": "mse", "decay": (0.01,) * (depth + 1)}
    program = make_program([6.0, 3.0, 1.0], nonnegative=True, **case)
    solution = solve_orthogonal_frames(program, GAP_TOL)
    check(program, solution)
    free = solve_orthogonal_frames(make_program([6.0, 3.0, 1.0], **case), GAP_TOL)
    assert (solution.logits == free.logits).all()
    value, _, _ = solve_factors(program, starts=5, spread=0.3, centre=1.2)
    assert value == pytest.approx(solution.objective, rel=1e-8)


def test_collapsed_classes_are_exactly_zero():
    program = make_program([90.0, 8.0, 1.0, 1.0], loss="mse", decay=(0.02, 0.02))
    solution = solve_orthogonal_frames(program, GAP_TOL)
    assert solution.stats["collapsed"] == 2
    geometry = solution.geometry
    assert (geometry.classifier_norms[2:] == 0).all()
    assert (geometry.feature_norms[2:] == 0).all()
    assert solution.classifiers(width=2).shape == (4, 2)


@pytest.mark.parametrize("decay", [1e-150, 1e-30, 1e-9, 1e9, 1e150])
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_extreme_decays(decay, depth):
    counts = np.geomspace(1e12, 1.0, 9)
    program = make_program(
        counts, loss="mse", decay=(decay ** (1 / depth),) * (depth + 1)
    )
    solution = solve_orthogonal_frames(program, GAP_TOL)
    assert solution.certificate.gap < 1e-13
    assert solution.objective > 0
    if decay > 1:
        assert solution.objective == pytest.approx(0.5, rel=1e-14)


@given(
    log_counts=st.lists(st.floats(0, 6), min_size=2, max_size=6),
    log_decay=st.floats(-16, -2),
    depth=st.integers(1, 4),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_permutation_equivariance(log_counts, log_decay, depth, seed):
    def solution(counts):
        decay = (math.exp(log_decay),) * (depth + 1)
        program = make_program(counts, loss="mse", decay=decay)
        return solve_orthogonal_frames(program, GAP_TOL)

    counts = np.exp(log_counts)
    order = np.random.default_rng(seed).permutation(len(counts))
    first, second = solution(counts), solution(counts[order])
    np.testing.assert_allclose(
        second.logits, first.logits[order][:, order], rtol=1e-9, atol=1e-12
    )
    assert first.certificate.lower_bound <= first.objective
    assert 0 <= first.certificate.gap < 1e-13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": "free"}, "needs no bias"),
        ({"loss": "cross_entropy"}, "the squared error; got SoftmaxLoss"),
    ],
    ids=str,
)
def test_rejects_what_it_does_not_solve(change, message):
    arguments = {"counts": [1.0] * 3, "decay": (0.1, 0.1), "loss": "mse"} | change
    with pytest.raises(ValueError, match=message):
        solve_orthogonal_frames(make_program(**arguments), GAP_TOL)
