import numpy as np
import pytest
import torch

from layerpeel.program.factored._objective import FactorObjective, Point
from tests.program.factored.cases import FOUR, VARIANTS
from tests.program.reference import make_program

CASES = {
    **VARIANTS,
    "three layers": {"decay": (2e-3, 1e-3, 1e-2, 1e-1), "bias": 0.2},
    "narrow": {"energy": (1.0, 5.0), "width": 2},
    "nonnegative": {"energy": (1.0, 5.0), "nonnegative": True, "bias": "free"},
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def objective_of(case):
    program = make_program(FOUR, **case)
    return FactorObjective(program, program.width or 4)


def start_of(objective, seed=0):
    return np.random.default_rng(seed).normal(size=objective.lower.size)


@cases
def test_gradient_is_that_of_finite_differences(case):
    objective = objective_of(case)
    x = start_of(objective)
    steps = 1e-5 * np.eye(x.size)
    expected = [
        (
            objective.value_and_gradient(x + h)[0]
            - objective.value_and_gradient(x - h)[0]
        )
        / 2e-5
        for h in steps
    ]
    gradient = objective.value_and_gradient(x)[1]
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


@cases
def test_value_is_loss_and_squared_norms_of_what_is_unpacked(case):
    objective = objective_of(case)
    x, program = start_of(objective), objective.program
    point = objective.unpack(x)
    loss = program.data_term(
        torch.tensor(objective.logits(point)), torch.tensor(point.bias)
    )
    norms = sum(np.sum(factor**2) for factor in point.factors)
    expected = loss.item() + (program.regulariser.multiplier or 0.0) / 2 * norms
    assert objective.value(x) == pytest.approx(expected, rel=1e-13)


@cases
def test_packing_keeps_the_product(case):
    objective = objective_of(case)
    point = objective.unpack(start_of(objective))
    again = objective.unpack(objective.pack(point))
    logits = objective.logits(point)
    np.testing.assert_allclose(objective.logits(again), logits, rtol=0.02)
    np.testing.assert_array_equal(again.bias, point.bias)


def test_budget_holds_for_every_vector_and_may_be_left_unspent():
    objective = objective_of({"energy": (1.0, 5.0)})
    tau = objective.program.regulariser.budget
    for seed in range(5):
        for factor in objective.unpack(10.0**seed * start_of(objective, seed)).factors:
            assert np.sum(factor**2) < tau
    small = Point((np.full((4, 4), 0.1), np.full((4, 4), 0.2)), np.zeros(4))
    kept = objective.unpack(objective.pack(small))
    for factor, given in zip(kept.factors, small.factors, strict=True):
        np.testing.assert_allclose(factor, given, rtol=1e-14)
