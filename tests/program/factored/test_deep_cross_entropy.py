import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from layerpeel.program.factored import (
    deep_etf,
    solve_deep_cross_entropy,
    solve_factored,
)
from layerpeel.program.solution import Status
from tests.program.reference import make_program, objective

# Decays 2e-3, one sample per class: the simplex ETF, the best found, and its rank.
COUNTEREXAMPLES = [
    (5, 2, 0.047511, 0.047126, 3),
    (6, 2, 0.059386, 0.055685, 3),
    (10, 2, 0.106875, 0.094323, 5),
    (4, 3, 0.034437, 0.031728, 2),
    (5, 3, 0.045914, 0.041798, 2),
    (6, 3, 0.057392, 0.048513, 3),
]


def balanced(K, M, **more):
    return make_program([1.0] * K, decay=(2e-3,) * (M + 1), **more)


@pytest.mark.parametrize(("K", "M", "etf", "best", "rank"), COUNTEREXAMPLES)
def test_simplex_etf_is_not_optimal_in_general(K, M, etf, best, rank):
    program = balanced(K, M)
    solution = solve_deep_cross_entropy(program, starts=8)
    assert solution.objective == pytest.approx(best, abs=6e-7)
    assert solution.objective == pytest.approx(
        objective(program, solution.logits), rel=1e-12
    )
    assert np.linalg.matrix_rank(solution.logits, tol=1e-6) == rank
    assert solution.stats["etf_objective"] == pytest.approx(etf, abs=6e-7)
    assert solution.stats["etf_is_best"] == 0.0
    assert solution.stats["gradient_norm"] < 1e-9
    assert solution.status is Status.STATIONARY
    assert 0 < solution.certificate.lower_bound < best


@pytest.mark.parametrize("K", [3, 4])
def test_nothing_better_than_the_simplex_etf_was_found_for_few_classes(K):
    solution = solve_deep_cross_entropy(balanced(K, 2), starts=8)
    etf = deep_etf(K, 1, (2e-3,) * 3)
    assert solution.objective == pytest.approx(etf.objective, rel=1e-12)
    assert solution.stats["etf_objective"] == pytest.approx(etf.objective, rel=1e-12)
    assert solution.stats["etf_is_best"] == 1.0
    assert solution.status is Status.STATIONARY


def test_blocks_win_for_six_classes_and_not_for_five():
    five, six = (solve_deep_cross_entropy(balanced(K, 2), starts=4) for K in (5, 6))
    assert six.stats["blocks_are_best"] == 1.0
    assert five.stats["blocks_are_best"] == 0.0
    assert five.stats["block_objective"] == pytest.approx(0.047445, abs=6e-7)


def factor_descent(program, seed, scale):
    """One plain descent on all factors from random ones."""
    K, M = program.num_classes, program.regulariser.depth
    c, delta = program.regulariser.multiplier, program.feature_weights.numpy()
    pi = program.weights.numpy()

    def value_and_gradient(x):
        factors = x.reshape(M + 1, K, K)
        before, after = [np.eye(K)], [np.eye(K)]
        for factor in factors:
            before.append(before[-1] @ factor)
        for factor in factors[::-1]:
            after.append(factor @ after[-1])
        logits = before[-1] / delta
        log_shares = logits - logsumexp(logits, axis=0)
        shares = np.exp(log_shares)
        slope = (shares - np.eye(K)) * pi / delta
        gradient = [
            before[j].T @ slope @ after[M - j].T + c * factors[j] for j in range(M + 1)
        ]
        value = -np.diagonal(log_shares) @ pi + c / 2 * np.sum(x**2)
        return value, np.ravel(gradient)

    start = scale * np.random.default_rng(seed).normal(size=(M + 1) * K * K)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-9}
    return minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options=options
    ).fun


@pytest.mark.parametrize(
    ("counts", "M"), [([8.0, 4.0, 2.0, 1.0], 2), ([9.0, 9.0, 1.0, 1.0, 1.0], 3)]
)
def test_imbalanced_counts_are_no_worse_than_plain_descents(counts, M):
    program = make_program(counts, decay=(4e-3,) * (M + 1))
    solution = solve_deep_cross_entropy(program)
    plain = min(factor_descent(program, s, 0.3 + 0.1 * (s % 8)) for s in range(24))
    assert solution.objective <= plain * (1 + 1e-9)
    assert solution.objective == pytest.approx(objective(program, solution.logits))


def test_free_bias_does_not_help_balanced_classes():
    plain, biased = (
        solve_deep_cross_entropy(balanced(6, 2, bias=bias), starts=2)
        for bias in (None, "free")
    )
    assert biased.objective == pytest.approx(plain.objective, rel=1e-9)


def test_free_bias_helps_imbalanced_classes():
    program = {"counts": [9.0, 3.0, 1.0, 1.0], "decay": (1e-2,) * 3}
    plain, biased = (
        solve_deep_cross_entropy(make_program(**program, bias=bias), starts=4)
        for bias in (None, "free")
    )
    assert biased.objective < plain.objective * (1 - 1e-3)


def test_class_weights_and_margins_are_served():
    program = make_program(
        [8.0, 4.0, 2.0, 1.0],
        decay=(2e-3,) * 3,
        class_weights=[1.0, 2.0, 4.0, 8.0],
        margin=[1.0, 1.0, 2.0, 2.0],
        smoothing=0.05,
    )
    solution = solve_deep_cross_entropy(program, starts=8)
    assert solution.objective == pytest.approx(objective(program, solution.logits))
    assert solution.objective <= solve_factored(program, starts=8, seed=5).objective * (
        1 + 1e-9
    )
    assert solution.certificate.lower_bound > 0


WRONG = {
    "one layer": {"decay": (1e-3, 1e-3)},
    "budget": {"energy": (1.0, 1.0)},
    "squared": {"decay": (1e-3,) * 3, "loss": "mse"},
    "nonnegative": {"decay": (1e-3,) * 3, "nonnegative": True},
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_other_programs_are_refused(case):
    with pytest.raises(ValueError, match="Call `solve_factored`"):
        solve_deep_cross_entropy(make_program([1.0, 1.0, 1.0], **case))
