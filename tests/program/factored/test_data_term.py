import numpy as np
import pytest
import torch

from layerpeel.program.factored._data_term import DataTerm
from tests.program.factored.cases import FOUR, VARIANTS
from tests.program.reference import data_term, make_program

variants = pytest.mark.parametrize("case", VARIANTS.values(), ids=VARIANTS.keys())


@variants
def test_value_and_gradient_are_those_of_the_definition(case):
    program = make_program(FOUR, **case)
    logits = np.random.default_rng(0).normal(size=(4, 4)) * 3
    free = torch.tensor(logits, requires_grad=True)
    program.data_term(free).backward()
    value, slope = DataTerm(program)(logits)
    assert value == pytest.approx(data_term(program, logits), rel=1e-13)
    np.testing.assert_allclose(slope, free.grad, rtol=1e-11, atol=1e-15)


@variants
def test_curvature_is_the_derivative_of_the_slopes(case):
    program = make_program(FOUR, **case)
    columns = DataTerm(program).columns
    logits = np.random.default_rng(1).normal(size=(4, 4))

    def slopes(logits):
        return columns.slopes(columns.losses(logits)[1])

    for column in range(4):
        curvature = columns.curvature(columns.losses(logits)[1], column)
        for row in range(4):
            step = np.zeros((4, 4))
            step[row, column] = 1e-6
            change = (slopes(logits + step) - slopes(logits - step)) / 2e-6
            np.testing.assert_allclose(curvature[:, row], change[:, column], atol=1e-8)


@variants
def test_conjugate_is_the_least_of_loss_minus_plane(case):
    """Equality in Fenchel's inequality at the whole residual, and not for a share."""
    program = make_program(FOUR, **case)
    columns = DataTerm(program).columns
    logits = np.random.default_rng(2).normal(size=(4, 4))
    losses, residual = columns.losses(logits)
    planes = (columns.slopes(residual) * logits).sum(axis=0)
    whole = columns.conjugates(residual, 1.0)
    np.testing.assert_allclose(whole + planes, losses, atol=1e-13)
    half = columns.conjugates(residual, 0.5) + planes / 2
    assert (half < losses).all()


def test_small_losses_keep_their_digits():
    program = make_program([1.0, 1.0], energy=(1.0, 1.0))
    value, slope = DataTerm(program)(np.diag([60.0, 60.0]))
    assert value == pytest.approx(np.exp(-60.0), rel=1e-14)
    assert slope[0, 0] == pytest.approx(-np.exp(-60.0) / 2, rel=1e-14)


def test_huge_logits_do_not_overflow():
    program = make_program([1.0, 1.0], energy=(1.0, 1.0))
    value, slope = DataTerm(program)(np.array([[-1e5, 0.0], [1e5, 0.0]]))
    assert value == pytest.approx(1e5 + np.log(2) / 2)
    assert np.isfinite(slope).all()
