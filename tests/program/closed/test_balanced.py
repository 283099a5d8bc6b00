import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel import simplex_etf
from layerpeel.program import PeeledProblem
from layerpeel.program.closed import solve_balanced
from layerpeel.program.solution import Status
from tests.program.closed.programs import GAP_TOL, check, solve_factors
from tests.program.layer_peeled_reference import lower_bound, objective, solve_sdp
from tests.program.reference import cvxpy_solve, make_program

CASES = {
    "budget": {"energy": (2.0, 0.5)},
    "budget, smoothed": {"energy": (0.5, 0.3), "smoothing": 0.1},
    "budget that smoothing leaves unspent": {"energy": (9.0, 9.0), "smoothing": 0.2},
    "decay per sample": {"decay": (3e-3, 2e-3)},
    "decay per class": {"decay": (3e-2, 1e-2), "per": "class"},
    "decay, smoothed": {"decay": (1e-3, 2e-3), "smoothing": 0.15},
    "free bias": {"decay": (3e-3, 2e-3), "bias": "free"},
    "ridge": {"energy": (2.0, 0.5), "bias": 0.3},
    "scale and margin": {"decay": (3e-3, 2e-3), "scale": 2.0, "margin": 3.0},
    "common offset": {"energy": (1.0, 0.5), "offset": 0.7, "scale": 0.5},
}


def gap_of(solution):
    """Own logit minus any other."""
    return float(solution.logits[0, 0] - solution.logits[1, 0])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_solves_the_convex_program(case):
    program = make_program([5.0] * 4, **case)
    solution = solve_balanced(program, GAP_TOL)
    check(program, solution)
    value, logits, bias = cvxpy_solve(program)
    assert solution.status is Status.CLOSED_FORM
    assert solution.objective == pytest.approx(value, rel=1e-7)
    assert solution.certificate.gap < 1e-13
    np.testing.assert_allclose(solution.logits, logits, atol=2e-3)
    np.testing.assert_allclose(solution.bias, bias - bias.mean(), atol=2e-3)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_factors_are_better(case):
    program = make_program([5.0] * 4, **case)
    value, logits, _ = solve_factors(program, width=3, starts=2)
    solution = solve_balanced(program, GAP_TOL)
    assert value == pytest.approx(solution.objective, rel=1e-9)
    assert value >= solution.certificate.lower_bound * (1 - 1e-13)
    # An unspent budget leaves a constant per column free.
    np.testing.assert_allclose(solution.logits, logits - logits.mean(0), atol=1e-3)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_published_scale_of_a_budget(num_classes):
    # w_k . h_j = sqrt(E_W E_H) (K delta_kj - 1) / (K - 1).
    K, energy = num_classes, (7.0, 0.01)
    solution = solve_balanced(make_program([17] * K, energy=energy), GAP_TOL)
    expected = math.sqrt(0.07) * (K * np.eye(K) - 1) / (K - 1)
    np.testing.assert_allclose(solution.logits, expected, rtol=1e-13, atol=1e-14)
    norms = solution.geometry.classifier_norms, solution.geometry.feature_norms
    np.testing.assert_allclose(norms[0], math.sqrt(7.0), rtol=1e-13)
    np.testing.assert_allclose(norms[1], 0.1, rtol=1e-13)


def test_scale_of_decay_solves_the_published_equation():
    # n sqrt(lam_W lam_H / n) times the gap's price equals the loss it saves.
    n, K, lam_W, lam_H = 20.0, 6, 3e-4, 5e-4
    solution = solve_balanced(make_program([n] * K, decay=(lam_W, lam_H)), GAP_TOL)
    gap = gap_of(solution)
    wrong = (K - 1) / (K - 1 + math.exp(gap))
    price = K * math.sqrt(lam_W * lam_H * n) * (K - 1) / K
    assert wrong == pytest.approx(price, rel=1e-12)
    W = solution.classifiers()
    expected = math.sqrt(n * lam_H / lam_W) * (K - 1) * gap
    assert float(W.square().sum()) == pytest.approx(expected, rel=1e-12)
    ratio = math.sqrt(lam_W / (n * lam_H))
    np.testing.assert_allclose(solution.class_means(), ratio * W, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_collapses_at_the_threshold(num_classes, smoothing):
    # K sqrt(n lam_W lam_H) = 1 - smoothing.
    def solution(factor):
        c = factor * (1 - smoothing) / (num_classes * math.sqrt(9.0))
        program = make_program(
            [9.0] * num_classes, decay=(c, c), smoothing=smoothing, width=1
        )
        return solve_balanced(program, GAP_TOL)

    collapsed = solution(1.02)
    assert (collapsed.logits == 0).all()
    assert collapsed.objective == pytest.approx(math.log(num_classes), rel=1e-14)
    if num_classes > 2:
        with pytest.raises(ValueError, match="width of at least 6"):
            solution(0.98)
    else:
        assert gap_of(solution(0.98)) > 0


def test_smoothing_spends_no_more_than_it_needs():
    # The smoothed loss is least where the softmax is the target.
    solution = solve_balanced(
        make_program([1.0] * 5, energy=(50.0, 50.0), smoothing=0.1), GAP_TOL
    )
    probabilities = torch.softmax(solution.logits, dim=0)
    expected = 0.9 * torch.eye(5, dtype=torch.float64) + 0.02
    np.testing.assert_allclose(probabilities, expected, atol=1e-14)


@pytest.mark.parametrize("energy", [1e-12, 1e-6, 1.0, 1e3, 1e6], ids=str)
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_keeps_its_digits_at_every_energy(num_classes, energy):
    K = num_classes
    solution = solve_balanced(make_program([1.0] * K, energy=(1.0, energy)), GAP_TOL)
    gap = K / (K - 1) * math.sqrt(energy)
    assert gap_of(solution) == pytest.approx(gap, rel=1e-13)
    log_odds = math.log(K - 1) - gap
    exact = log_odds if log_odds < -40 else math.log(math.log1p(math.exp(log_odds)))
    assert solution.stats["log_objective"] == pytest.approx(exact, rel=1e-13, abs=1e-13)
    assert solution.certificate.gap < 1e-11


@given(
    num_classes=st.integers(2, 8),
    log_energy=st.floats(-12, 8),
    log_ratio=st.floats(-5, 5),
    smoothing=st.sampled_from([0.0, 1e-9, 0.1, 0.8]),
)
@settings(max_examples=40, deadline=None)
def test_bound_and_invariance(num_classes, log_energy, log_ratio, smoothing):
    def solution(ratio):
        energy = math.exp(log_energy + ratio), math.exp(log_energy - ratio)
        program = make_program([3.0] * num_classes, energy=energy, smoothing=smoothing)
        return solve_balanced(program, GAP_TOL)

    first, second = solution(0.0), solution(log_ratio)
    assert 0 <= first.certificate.gap < 1e-10
    assert first.certificate.lower_bound <= first.objective
    np.testing.assert_allclose(first.logits, second.logits, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": [1.0, 2.0, 3.0]}, "same feature weight for every class"),
        ({"per": "class", "counts": [1.0, 2.0, 3.0]}, "same weight for every class"),
        ({"class_weights": [1.0, 1.0, 2.0]}, "same weight for every class"),
        ({"offset": [0.0, 1.0, 0.0]}, "same offset"),
        ({"scale": [1.0, 1.0, 2.0]}, "same scale"),
        ({"margin": [1.0, 1.0, 2.0]}, "same margin"),
        ({"decay": (0.1, 0.1, 0.1)}, "one layer; got 2"),
        ({"nonnegative": True}, "features of any sign"),
        ({"width": 1}, "width of at least 2; got 1"),
        ({"loss": "mse"}, "the cross-entropy; got SquaredLoss"),
    ],
    ids=str,
)
def test_rejects_what_it_does_not_solve(change, message):
    arguments = {"counts": [1.0] * 3, "decay": (0.1, 0.1)} | change
    with pytest.raises(ValueError, match=message):
        solve_balanced(make_program(**arguments), GAP_TOL)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 200])
@pytest.mark.parametrize("energy", [(1.0, 5.0), (7.0, 0.01)], ids=str)
def test_is_a_simplex_frame_with_the_values_of_the_theorem(num_classes, energy):
    K, scale = num_classes, math.sqrt(energy[0] * energy[1])
    solution = PeeledProblem([17] * K, energy=energy).solve()
    expected = scale * (K * np.eye(K) - 1) / (K - 1)
    np.testing.assert_allclose(solution.logits, expected, rtol=1e-13, atol=1e-13)
    loss = math.log1p((K - 1) * math.exp(-K / (K - 1) * scale))
    assert solution.objective == pytest.approx(loss, rel=1e-13)
    assert solution.status is Status.CLOSED_FORM
    assert 0 <= solution.certificate.gap < 1e-12


def test_published_check_value():
    solution = PeeledProblem([1] * 10, energy=(1.0, 5.0)).solve()
    assert solution.objective == pytest.approx(0.5597815, abs=5e-8)


def test_frame_and_duality():
    solution = PeeledProblem([3.5] * 6, energy=(4.0, 9.0)).solve()
    classifiers, means = solution.classifiers(), solution.class_means()
    frame = 2 * simplex_etf(6)
    np.testing.assert_allclose(
        classifiers @ classifiers.T, frame @ frame.T, rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(means / 3, classifiers / 2, rtol=0, atol=1e-13)


def test_agrees_with_the_semidefinite_program():
    value, gram = solve_sdp([1.0] * 4, (2.0, 0.5))
    solution = PeeledProblem([1.0] * 4, energy=(2.0, 0.5)).solve()
    assert solution.objective == pytest.approx(value, rel=1e-8)
    np.testing.assert_allclose(
        solution.geometry.classifier_gram, gram[4:, 4:], atol=1e-4
    )


def test_bound_agrees_with_the_dense_one():
    solution = PeeledProblem([2.0] * 5, energy=(1.0, 3.0)).solve()
    dense = lower_bound(solution.logits, [2.0] * 5, 5 * math.sqrt(3))
    assert solution.certificate.lower_bound == pytest.approx(dense, rel=1e-12)
    assert objective(solution.logits, [2.0] * 5) == pytest.approx(
        solution.objective, rel=1e-13
    )
