import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.factored import solve_factored
from layerpeel.program.factors import ExplicitFactors
from layerpeel.program.solution import Status
from tests.program.factored.cases import FOUR, VARIANTS
from tests.program.reference import (
    cvxpy_solve,
    data_term,
    factor_penalty,
    make_program,
    nuclear_norm,
    objective,
)

variants = pytest.mark.parametrize("case", VARIANTS.values(), ids=VARIANTS.keys())


def squared_optimum(counts, decay, bias=False):
    """The least squared error with any number of layers, singular value by value."""
    n, layers = np.asarray(counts), len(decay) - 1
    N, c = n.sum(), np.prod(decay) ** (1 / len(decay))
    target = np.diag(n) - np.outer(n, n) / N if bias else np.diag(n)
    total = 0.0
    for s in np.sqrt(np.maximum(np.linalg.eigvalsh(target), 0.0)):
        coefficients = np.zeros(2 * layers + 1)
        coefficients[0], coefficients[-1] = 1.0, N * c
        coefficients[layers + 1] -= s
        roots = np.roots(coefficients)
        t = np.append(roots[abs(roots.imag) < 1e-9].real, 0.0)
        t = t[t >= 0]
        fit = (t ** (layers + 1) - s) ** 2 / (2 * N)
        total += np.min(fit + (layers + 1) / 2 * c * t**2)
    return total


def relu_optimum(counts, decay):
    """Cross-entropy with nonnegative features: orthogonal classes, one by one."""
    n, (lam_W, lam_H) = np.asarray(counts), decay
    N, K = n.sum(), len(n)
    q = N * np.sqrt(lam_W * lam_H * (K - 1) / (K * n))
    a = np.log(np.maximum((K - 1) * (1 / q - 1), 1.0))
    loss = n / N * np.log1p((K - 1) * np.exp(-a))
    return np.sum(loss + np.sqrt(n * lam_W * lam_H * (K - 1) / K) * a)


@variants
def test_one_layer_is_certified_and_agrees_with_the_convex_program(case):
    program = make_program(FOUR, **case)
    solution = solve_factored(program, 1e-8)
    assert solution.status is Status.CERTIFIED
    logits, bias = solution.logits.numpy(), solution.bias.numpy()
    assert solution.objective == pytest.approx(objective(program, logits, bias), 1e-12)
    assert solution.objective == pytest.approx(cvxpy_solve(program)[0], 1e-6)
    assert solution.stats["gradient_norm"] < 1e-9
    if program.regulariser.budget is not None:
        spent = nuclear_norm(program, logits)
        assert spent <= program.regulariser.budget * (1 + 1e-14)


@pytest.mark.parametrize("bias", [None, "free"])
@pytest.mark.parametrize("depth", [2, 3])
def test_deep_squared_error_agrees_with_its_singular_values(depth, bias):
    counts = [300.0, 120.0, 40.0, 30.0, 25.0, 6.0]
    decay = (2e-3, 1e-2, 4e-3, 1e-2)[: depth + 1]
    program = make_program(counts, decay=decay, loss="mse", bias=bias)
    solution = solve_factored(program, seed=1)
    expected = squared_optimum(counts, decay, bias == "free")
    assert solution.objective == pytest.approx(expected, rel=1e-11)
    assert solution.status is Status.STATIONARY
    assert 0 < solution.certificate.lower_bound < expected


@pytest.mark.parametrize(("share", "collapsed"), [(0.98, False), (1.02, True)])
def test_first_order_transition_is_decided_by_the_objective(share, collapsed):
    # Two layers, three classes of ten samples: classes collapse from this decay on,
    # far below the one from which on no other point is stationary.
    decay = share * (10 / (4 * 30**1.5)) ** (2 / 3)
    program = make_program([10.0] * 3, decay=(decay,) * 3, loss="mse")
    solution = solve_factored(program)
    expected = squared_optimum([10.0] * 3, (decay,) * 3)
    assert solution.objective == pytest.approx(expected, rel=1e-12)
    assert bool((solution.logits == 0).all()) is collapsed


NONNEGATIVE = {
    "no bias": {"decay": (2e-3, 4e-3)},
    "collapsed minority": {"decay": (2e-2, 2e-2)},
    "free bias": {"decay": (2e-3, 4e-3), "bias": "free"},
    "ridge bias, budget": {"energy": (1.0, 5.0), "bias": 0.01},
    "squared, bias": {"decay": (2e-3, 4e-3), "loss": "mse", "bias": "free"},
    "strong decay": {"decay": (1e3, 1e3), "bias": "free"},
    "attraction": {
        "decay": (2e-3, 4e-3),
        "scale": [2.5, 0.5, 1.0, 0.5],
        "offset": [1.5, 1.0, -1.0, -2.0],
        "margin": [0.5, 2.0, 1.0, 0.5],
        "smoothing": 0.1,
    },
}


@pytest.mark.parametrize("case", NONNEGATIVE.values(), ids=NONNEGATIVE.keys())
def test_nonnegative_features_are_certified(case):
    program = make_program([40.0, 10.0, 5.0, 3.0], nonnegative=True, **case)
    solution = solve_factored(program, 1e-8)
    assert solution.status is Status.CERTIFIED
    W, H = solution.factors.classifiers(), solution.factors.class_means()
    assert (H >= 0).all()
    expected = data_term(program, solution.logits.numpy(), solution.bias.numpy())
    if program.regulariser.budget is None:
        expected += factor_penalty(program, W, H)
    assert solution.objective == pytest.approx(expected, rel=1e-10)
    free = make_program([40.0, 10.0, 5.0, 3.0], **case)
    assert solution.objective > cvxpy_solve(free)[0] * (1 - 1e-7)


def test_slopes_whose_squares_underflow_still_certify():
    program = make_program(FOUR, energy=(300.0, 300.0), nonnegative=True)
    solution = solve_factored(program)
    assert 0 < solution.objective < 1e-100
    assert abs(solution.certificate.gap) < 1e-9
    assert solution.status is Status.CERTIFIED


@pytest.mark.parametrize("decay", [(2e-3, 4e-3), (2e-2, 2e-2)])
def test_nonnegative_features_without_bias_have_the_closed_form(decay):
    counts = [40.0, 10.0, 5.0, 3.0]
    program = make_program(counts, decay=decay, nonnegative=True)
    solution = solve_factored(program)
    assert solution.objective == pytest.approx(relu_optimum(counts, decay), rel=1e-11)


@pytest.mark.parametrize("case", ["decay", "budget"])
def test_width_below_the_rank_lies_between_the_bound_and_less_width(case):
    wide = make_program(FOUR, **VARIANTS[case])
    bound = cvxpy_solve(wide)[0] * (1 - 1e-7)
    solutions = [
        solve_factored(make_program(FOUR, **VARIANTS[case], width=width), bound=bound)
        for width in (1, 2, 3)
    ]
    one, two, three = (solution.objective for solution in solutions)
    assert bound < three < two < one
    assert solutions[1].certificate.lower_bound == bound
    assert solutions[1].status is Status.STATIONARY
    assert solutions[1].classifiers(2).shape == (4, 2)
    # The rank of the optimum is three: no more is needed, and so it is certified.
    assert solutions[2].status is Status.CERTIFIED


def test_bound_above_a_point_is_refused():
    program = make_program(FOUR, decay=(2e-3, 1e-3))
    with pytest.raises(ValueError, match=r"`bound` must be a lower bound.* got 5\.0"):
        solve_factored(program, bound=5.0)


def test_tight_bound_from_elsewhere_certifies():
    counts, decay = [100.0, 50.0, 20.0], (1e-3, 1e-3, 1e-3)
    program = make_program(counts, decay=decay, loss="mse")
    bound = squared_optimum(counts, decay) * (1 - 1e-12)
    assert solve_factored(program).status is Status.STATIONARY
    assert solve_factored(program, bound=bound).status is Status.CERTIFIED


def test_same_seed_same_bits():
    program = make_program(FOUR, decay=(1e-3,) * 3)
    first, second = (solve_factored(program, starts=6, seed=3) for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert first.stats == second.stats


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(["decay", "scale, offset, margin"]))
def test_relabelling_the_classes_permutes_the_solution(order, name):
    case = VARIANTS[name]
    moved = {
        key: [values[k] for k in order]
        if key in ("scale", "offset", "margin")
        else values
        for key, values in case.items()
    }
    plain = solve_factored(make_program(FOUR, **case))
    permuted = solve_factored(make_program([FOUR[k] for k in order], **moved))
    assert permuted.objective == pytest.approx(plain.objective, rel=1e-11)
    expected = plain.logits[list(order)][:, list(order)]
    np.testing.assert_allclose(permuted.logits, expected, atol=1e-6)


def test_balance_scales_the_factors_alone():
    even, odd = (
        solve_factored(make_program(FOUR, energy=energy))
        for energy in [(2.0, 2.0), (8.0, 0.5)]
    )
    assert odd.objective == pytest.approx(even.objective, rel=1e-12)
    for solution, energy in [(even, (2.0, 2.0)), (odd, (8.0, 0.5))]:
        geometry = solution.geometry
        assert geometry.classifier_norms.square().mean() == pytest.approx(energy[0])
        assert geometry.feature_norms.square().mean() == pytest.approx(energy[1])


def test_labels_met_exactly_within_a_budget_leave_no_error():
    solution = solve_factored(make_program(FOUR, energy=(1.0, 4.0), loss="mse"))
    assert solution.objective == 0.0
    assert solution.status is Status.CERTIFIED
    np.testing.assert_allclose(solution.logits, np.eye(4), atol=1e-12)


def test_strong_decay_leaves_exactly_nothing():
    solution = solve_factored(make_program(FOUR, decay=(1.0, 10.0)))
    assert not solution.logits.any()
    assert solution.objective == pytest.approx(math.log(4), rel=1e-15)
    assert solution.status is Status.CERTIFIED


def test_warm_start_is_taken_and_wins():
    program = make_program([1.0] * 10, decay=(2e-3,) * 4)
    cold = solve_factored(program, starts=1)
    best = solve_factored(program, starts=6)
    warm = solve_factored(program, starts=1, warm=[best.factors])
    assert cold.objective > best.objective * 1.001
    assert warm.objective == pytest.approx(best.objective, rel=1e-12)


def test_warm_start_of_nonnegative_features_is_a_fixed_point():
    program = make_program(FOUR, energy=(1.0, 5.0), nonnegative=True, bias="free")
    solution = solve_factored(program)
    again = solve_factored(program, warm=[solution.factors])
    assert again.objective == pytest.approx(solution.objective, rel=1e-12)
    assert again.stats["starts"] == 1


def test_step_limit_is_a_status():
    program = make_program(FOUR, decay=(1e-4,) * 3, width=2)
    solution = solve_factored(program, starts=1, max_steps=1)
    assert solution.status in (Status.MAX_STEPS, Status.STATIONARY)
    assert (solution.status is Status.MAX_STEPS) == (
        solution.stats["gradient_norm"] > 1e-10
    )


def test_values_that_are_not_finite_are_a_status():
    program = make_program([1.0, math.nan], decay=(1e-3, 1e-3))
    solution = solve_factored(program, starts=1)
    assert solution.status is Status.NONFINITE
    assert math.isnan(solution.objective)
    assert isinstance(solution.factors, ExplicitFactors)


def test_loss_below_all_floats_is_a_status():
    solution = solve_factored(make_program([2.0, 1.0], energy=(1e8, 1.0)), starts=1)
    assert solution.status is Status.STATIONARY
    assert solution.certificate.gap == 1.0
    assert bool(solution.logits.isfinite().all())


@pytest.mark.parametrize("name", ["starts", "max_steps"])
def test_numbers_out_of_range_are_refused(name):
    program = make_program(FOUR, decay=(1e-3, 1e-3))
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1; got 0"):
        solve_factored(program, **{name: 0})
    with pytest.raises(ValueError, match="`gap_tol`"):
        solve_factored(program, -1.0)
