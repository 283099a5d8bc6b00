import numpy as np
import pytest

from layerpeel.program.factored._rounding import Decomposition, rounded
from tests.program.factored.cases import FOUR, VARIANTS
from tests.program.reference import make_program, nuclear_norm, objective

variants = pytest.mark.parametrize("case", VARIANTS.values(), ids=VARIANTS.keys())


@variants
def test_objective_and_factors_are_those_of_the_logits(case):
    program = make_program(FOUR, **case)
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, 4))
    bias = np.zeros(4) if program.ridge is None else random.normal(size=4)
    found = Decomposition.of(program, logits)
    expected = objective(program, logits, bias)
    assert found.objective(bias) == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(found.factors.geometry.logits, logits, atol=1e-13)


def test_noise_of_a_zero_is_dropped_and_a_small_direction_kept():
    program = make_program([1.0] * 4, decay=(1e-3,) * 4)
    logits = np.diag([5.0, 5.0, 0.0, 0.0])
    noisy = logits + 1e-9 * np.random.default_rng(0).normal(size=(4, 4))
    found = rounded(Decomposition.of(program, noisy), np.zeros(4))
    assert found.values.size == 2
    assert found.factors.spectrum.rank == 2
    small = np.diag([5.0, 5.0, 1e-3, 0.0])
    assert rounded(Decomposition.of(program, small), np.zeros(4)).values.size == 3


@pytest.mark.parametrize("share", [0.999, 1.001])
def test_a_budget_that_pays_is_spent_exactly(share):
    program = make_program(FOUR, energy=(1.0, 5.0))
    logits = np.eye(4) - 1 / 4
    scaled = logits * share * program.regulariser.budget / 3
    found = rounded(Decomposition.of(program, scaled), np.zeros(4))
    spent = nuclear_norm(program, found.factors.geometry.logits)
    assert spent == pytest.approx(program.regulariser.budget, rel=1e-14)


def test_a_budget_that_does_not_pay_is_not_spent():
    program = make_program(FOUR, energy=(9.0, 9.0), loss="mse")
    found = rounded(Decomposition.of(program, np.eye(4)), np.zeros(4))
    np.testing.assert_allclose(found.values, 1.0, rtol=1e-14)


def test_nothing_has_rank_zero():
    program = make_program(FOUR, decay=(1e-3, 1e-3))
    found = rounded(Decomposition.of(program, np.zeros((4, 4))), np.zeros(4))
    assert found.values.size == 0
    assert found.objective(np.zeros(4)) == pytest.approx(np.log(4))
    assert found.factors.classifiers().shape == (4, 0)
