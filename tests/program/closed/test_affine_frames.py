import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.closed import solve_affine_frames
from layerpeel.program.solution import Status
from tests.program.closed.programs import GAP_TOL, check, solve_factors
from tests.program.reference import cvxpy_solve, make_program

COUNTS = [9.0, 4.0, 4.0, 1.0]


def solve(counts, **case):
    program = make_program(counts, loss="mse", **case)
    return program, solve_affine_frames(program, GAP_TOL)


CONVEX = {
    "free, distinct counts": ([9.0, 5.0, 2.0], {"decay": (0.02, 0.03), "bias": "free"}),
    "free, repeated counts": (COUNTS, {"decay": (0.02, 0.03), "bias": "free"}),
    "free, balanced": ([3.0] * 4, {"decay": (0.02, 0.03), "bias": "free"}),
    "free, budget": ([3.0] * 4, {"energy": (0.5, 0.6), "bias": "free"}),
    "ridge, frame": ([3.0] * 4, {"decay": (0.04, 0.05), "bias": 0.1}),
    "ridge, interpolates": ([3.0] * 4, {"decay": (0.02, 0.03), "bias": 2.0}),
    "ridge, per class": (
        [3.0] * 4,
        {"decay": (0.02, 0.03), "bias": 0.5, "per": "class"},
    ),
    "ridge, budget": ([3.0] * 4, {"energy": (0.5, 0.6), "bias": 0.5}),
    "ridge, enough budget": ([3.0] * 3, {"energy": (2.0, 2.0), "bias": 0.5}),
}


@pytest.mark.parametrize(("counts", "case"), CONVEX.values(), ids=CONVEX)
def test_one_layer_agrees_with_an_interior_point_method(counts, case):
    program, solution = solve(counts, **case)
    check(program, solution, rel=1e-8)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-12
    value, logits, bias = cvxpy_solve(program)
    assert solution.objective == pytest.approx(value, abs=1e-7)
    np.testing.assert_allclose(solution.logits, logits, atol=1e-3)
    np.testing.assert_allclose(solution.bias, bias, atol=1e-3)


FACTORED = {
    "free, two layers": (COUNTS, {"decay": (0.03, 0.05, 0.02), "bias": "free"}),
    "free, three layers": (COUNTS, {"decay": (0.05,) * 4, "bias": "free"}),
    "free, narrow": (
        [9.0, 5.0, 2.0, 1.0],
        {"decay": (0.01, 0.02, 0.02), "bias": "free", "width": 2},
    ),
    "free, cut through a tie": (
        COUNTS,
        {"decay": (0.02, 0.01), "bias": "free", "width": 2},
    ),
    "free, narrow budget": (
        [3.0] * 4,
        {"energy": (0.3, 0.3), "bias": "free", "width": 2},
    ),
    "ridge, two layers": ([4.0] * 3, {"decay": (0.03, 0.05, 0.02), "bias": 0.2}),
    "ridge, two layers, full": ([4.0] * 3, {"decay": (0.03,) * 3, "bias": 5.0}),
    "ridge, narrow": ([4.0] * 4, {"decay": (0.02, 0.02), "bias": 1.0, "width": 2}),
    "ridge, narrow and deep": (
        [4.0] * 4,
        {"decay": (0.02, 0.02, 0.02), "bias": 1.0, "width": 2},
    ),
}


@pytest.mark.parametrize(("counts", "case"), FACTORED.values(), ids=FACTORED)
def test_no_factors_are_better(counts, case):
    program, solution = solve(counts, **case)
    check(program, solution)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-12
    value, _, bias = solve_factors(program, program.width, starts=8, spread=0.8)
    assert value == pytest.approx(solution.objective, rel=1e-8)
    np.testing.assert_allclose(solution.bias, bias, atol=1e-3)


def test_narrow_budget_with_a_ridge_is_not_proved():
    # Balanced classes of two kinds of directions, and room for less than one kind.
    program, solution = solve([4.0] * 4, energy=(0.9, 0.9), bias=50.0, width=2)
    check(program, solution)
    assert solution.status is Status.STATIONARY
    assert solution.certificate.gap > 0.1
    value, _, _ = solve_factors(program, width=2, starts=2)
    assert value == pytest.approx(solution.objective, rel=1e-6)


def test_free_bias_is_the_class_frequency_whatever_is_left():
    for decay in (1e-6, 1e-2, 10.0):
        _, solution = solve(COUNTS, decay=(decay, decay), bias="free")
        np.testing.assert_allclose(solution.bias, np.array(COUNTS) / 18, rtol=1e-14)


@pytest.mark.parametrize("c_b", [0.2, 0.7])
def test_ridge_gives_an_exact_simplex_frame_on_an_interval(c_b):
    # c_b = K sqrt(n lam_W lam_H); the frame holds for ridges up to c_b / (1 - c_b).
    K, n = 5, 7.0
    lam = c_b / (K * math.sqrt(n))
    end = c_b / (1 - c_b)
    frame = (1 - c_b) * (np.eye(K) - 1 / K)
    for ridge in (1e-9, 0.5 * end, 0.98 * end):
        _, solution = solve([n] * K, decay=(lam, lam), bias=ridge)
        assert solution.stats["rank"] == K - 1
        np.testing.assert_allclose(solution.logits, frame, atol=1e-14)
        np.testing.assert_allclose(solution.bias, 1 / (K * (1 + ridge)), rtol=1e-12)
    for ridge in (1.02 * end, 30 * end):
        _, solution = solve([n] * K, decay=(lam, lam), bias=ridge)
        assert solution.stats["rank"] == K
        mean = 1 - c_b - c_b / ridge
        np.testing.assert_allclose(solution.logits, frame + mean / K, atol=1e-14)
        np.testing.assert_allclose(solution.bias, c_b / (K * ridge), rtol=1e-12)


@pytest.mark.parametrize("bias", ["free", 0.3])
def test_everything_collapses_but_the_bias(bias):
    K = 4
    _, solution = solve([5.0] * K, decay=(1.0, 1.0), bias=bias)
    assert (solution.logits == 0).all()
    assert solution.stats["rank"] == 0
    ridge = 0.0 if bias == "free" else bias
    np.testing.assert_allclose(solution.bias, 1 / (K * (1 + ridge)), rtol=1e-14)


@pytest.mark.parametrize("factor", [0.98, 1.02])
@pytest.mark.parametrize("depth", [1, 2])
def test_equal_rare_classes_collapse_to_equal_logits(depth, factor):
    # The spread of classes of equal count obeys the equation without a bias.
    counts = np.array([50.0, 20.0, 3.0, 3.0, 3.0])
    lam = {1: math.sqrt(3.0), 2: (3.0**2 / 16 / 79.0) ** (1 / 3)}[depth] / 79.0
    if depth == 1:
        decay = (lam * factor**0.5,) * 2
    else:
        # n* = 4 N^(3/2) Lambda^(1/2) for two layers.
        decay = ((3.0 * factor / 4 / 79.0**1.5) ** (2 / 3),) * 3
    _, solution = solve(counts, decay=decay, bias="free")
    rows = solution.logits[2:]
    collapsed = bool((rows == rows[0]).all())
    assert collapsed == (factor > 1)
    means = solution.class_means()[2:]
    assert bool((means == means[0]).all()) == (factor > 1)


def test_permuted_groups_keep_their_classes():
    order = [2, 0, 3, 1]
    _, first = solve(COUNTS, decay=(0.02, 0.03), bias="free")
    _, second = solve([COUNTS[k] for k in order], decay=(0.02, 0.03), bias="free")
    np.testing.assert_allclose(second.logits, first.logits[order][:, order], atol=1e-14)


@given(
    log_counts=st.lists(st.floats(0, 5), min_size=2, max_size=6),
    log_decay=st.floats(-14, -2),
    depth=st.integers(1, 3),
    width=st.one_of(st.none(), st.integers(1, 6)),
)
@settings(max_examples=60, deadline=None)
def test_bound_holds_and_objective_is_attained(log_counts, log_decay, depth, width):
    counts = np.round(np.exp(log_counts))  # with ties
    decay = (math.exp(log_decay),) * (depth + 1)
    program, solution = solve(counts, decay=decay, bias="free", width=width)
    check(program, solution, rel=1e-7)
    assert 0 <= solution.certificate.gap < 1e-12
    # Rows of Z diag(n) sum to zero: the bias has the mean.
    assert float((solution.logits @ torch.tensor(counts)).abs().max()) < 1e-9
    if width is not None:
        assert solution.stats["rank"] <= width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "needs a bias; got none"),
        ({"per": "class"}, "ratio of weight to squared feature weight"),
        ({"class_weights": [1.0, 2.0, 1.0]}, "ratio of weight"),
        ({"bias": 0.1}, r"same weight \(with a ridge\)"),
        ({"nonnegative": True}, "features of any sign"),
        ({"loss": "cross_entropy"}, "the squared error; got SoftmaxLoss"),
    ],
    ids=str,
)
def test_rejects_what_it_does_not_solve(change, message):
    arguments = {
        "counts": [3.0, 2.0, 1.0],
        "decay": (0.1, 0.1),
        "loss": "mse",
        "bias": "free",
    } | change
    with pytest.raises(ValueError, match=message):
        solve_affine_frames(make_program(**arguments), GAP_TOL)
