import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from layerpeel.program.closed.logit_gaps import GapProgram
from tests.program.closed.programs import budget, penalty, vector

EXACT = mpmath.mp.clone()
EXACT.dps = 60


def random_program(K, seed, smoothing=0.0):
    generator = np.random.default_rng(seed)
    weights = np.exp(generator.uniform(-3, 3, K))
    prices = np.exp(generator.uniform(-1, 1, K))
    return GapProgram(
        K, vector(weights / weights.sum()), vector(prices), vector([smoothing] * K)
    )


def loss(program, k, gap):
    """Weighted loss of one class at a gap, in many digits."""
    m = EXACT
    K, weight = program.num_classes, m.mpf(float(program.weights[k]))
    slope = m.mpf(float(program.smoothing[k])) * (K - 1) / K
    gap = m.mpf(float(gap))
    return weight * (m.log1p((K - 1) * m.exp(-gap)) + slope * gap)


def entropy(program, k, multiplier):
    """The least of loss and priced gap, which is an entropy, in many digits."""
    m = EXACT
    K, weight = program.num_classes, m.mpf(float(program.weights[k]))
    wrong = m.mpf(float(program.smoothing[k])) * (K - 1) / K
    wrong += multiplier * m.mpf(float(program.prices[k])) / weight
    wrong = min(wrong, m.mpf(K - 1) / K)
    return weight * (-(1 - wrong) * m.log1p(-wrong) - wrong * m.log(wrong / (K - 1)))


@pytest.mark.parametrize("smoothing", [0.0, 1e-10, 0.2])
@pytest.mark.parametrize("multiplier", [1e-6, 1e-2, 0.1])
def test_penalised_gaps_minimise_every_class(multiplier, smoothing):
    program = random_program(6, seed=3, smoothing=smoothing)
    gaps = program.solve(penalty(multiplier)).gaps
    for k, gap in enumerate(gaps.tolist()):
        price = multiplier * float(program.prices[k])
        best = minimize_scalar(
            lambda a, k=k, price=price: float(loss(program, k, a)) + price * a,
            bounds=(0, 60),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert gap == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-10, 0.2])
@pytest.mark.parametrize("tau", [1e-9, 0.1, 3.0, 30.0, 3e3, 1e6])
def test_budget_meets_the_dual_in_many_digits(tau, smoothing):
    program = random_program(7, seed=4, smoothing=smoothing)
    solution = program.solve(budget(tau))
    spent = float(program.prices @ solution.gaps)
    assert spent <= tau * (1 + 1e-14)
    value = sum(loss(program, k, gap) for k, gap in enumerate(solution.gaps))
    assert solution.log_objective == pytest.approx(
        float(EXACT.log(value)), rel=1e-13, abs=1e-13
    )
    # The multiplier of the class with the largest gap is the common one, up to
    # rounding, and any multiplier gives a lower bound.
    K, k = 7, int(solution.gaps.argmax())
    weight, price = float(program.weights[k]), float(program.prices[k])
    own = (K - 1) * EXACT.exp(-EXACT.mpf(float(solution.gaps[k])))
    slope = EXACT.mpf(float(program.smoothing[k])) * (K - 1) / K
    multiplier = max((own / (1 + own) - slope) * weight / price, 0)
    dual = sum(entropy(program, j, multiplier) for j in range(K)) - multiplier * tau
    gap = float(1 - dual / value)
    rounding = 1e-13 * max(1.0, tau)  # of the budget, times the multiplier
    assert -rounding < gap < rounding
    assert solution.certificate.gap == pytest.approx(gap, abs=rounding)


@pytest.mark.parametrize("energy", [1e-12, 1.0, 1e3, 1e6])
def test_many_classes(energy):
    K = 100_000
    weights = 1.0 / torch.arange(1, K + 1, dtype=torch.float64)
    ones = torch.ones_like(weights)
    program = GapProgram(K, weights / weights.sum(), ones, 0 * ones)
    solution = program.solve(budget(K * energy))
    assert float(solution.gaps.sum()) == pytest.approx(K * energy, rel=1e-12)
    assert solution.certificate.gap < 1e-9
    # The rarer the class, the smaller its gap; log(K - 1) - log(1/q - 1) is its slack.
    assert (solution.gaps.diff() <= 0).all()
    active = solution.gaps > 0
    assert solution.collapsed == int((~active).sum())


def test_equal_classes_spend_exactly_the_same():
    program = GapProgram(5, vector([0.2] * 5), vector([0.3] * 5), vector([0.0] * 5))
    assert program.solve(budget(6.0)).gaps.tolist() == [4.0] * 5


def test_everything_collapses_under_a_huge_penalty():
    program = random_program(5, seed=0)
    solution = program.solve(penalty(1e300))
    assert solution.collapsed == 5
    assert solution.certificate.objective == pytest.approx(math.log(5), rel=1e-14)
    assert solution.certificate.gap == pytest.approx(0, abs=1e-14)


@given(
    seed=st.integers(0, 1000),
    log_tau=st.floats(-20, 14),
    first=st.sampled_from([0.0, 1e-12, 0.3]),
    second=st.sampled_from([0.0, 0.05, 0.9]),
)
@settings(max_examples=50, deadline=None)
def test_gap_is_small_with_mixed_smoothing(seed, log_tau, first, second):
    program = random_program(6, seed)
    smoothing = vector([first, second] * 3)
    program = GapProgram(6, program.weights, program.prices, smoothing)
    solution = program.solve(budget(math.exp(log_tau)))
    assert 0 <= solution.certificate.gap < 1e-8
    assert (solution.gaps >= 0).all()
    assert float(program.prices @ solution.gaps) <= math.exp(log_tau) * (1 + 1e-13)
    more = program.solve(budget(2 * math.exp(log_tau)))
    assert more.log_objective <= solution.log_objective + 1e-12
