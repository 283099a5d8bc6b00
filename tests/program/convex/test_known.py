import math

import numpy as np
import pytest
import torch

from layerpeel.program.convex.blocks import BlockProgram
from layerpeel.program.convex.known import interpolant, known_optimum
from tests.program.convex.cases import (
    CASES,
    MIXED,
    SINGLES,
    dense,
    expanded,
    nuclear_norm,
)
from tests.program.reference import cvxpy_solve, make_program, objective

TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
COUNTS = expanded(MIXED, [9.0, 3.0, 1.0])
SMOOTHED = {
    "smoothing": 0.2,
    "scale": expanded(MIXED, [1.0, 2.0, 0.5]),
    "offset": expanded(MIXED, [0.3, -1.0, 0.5]),
    "margin": expanded(MIXED, [1.0, 0.5, 2.0]),
    "class_weights": expanded(MIXED, [1.0, 2.0, 3.0]),
}
ATTAINED = {
    "squared": {"loss": "mse"},
    "squared, free bias": {"loss": "mse", "bias": "free"},
    "squared, ridge": {"loss": "mse", "bias": 0.1},
    "smoothed": SMOOTHED,
    "smoothed, free bias": {**SMOOTHED, "bias": "free"},
    "smoothed, ridge": {**SMOOTHED, "bias": 0.1},
}
attained = pytest.mark.parametrize("variant", ATTAINED.values(), ids=ATTAINED)


def budgeted(variant, root):
    program = make_program(COUNTS, energy=(root, root), **variant)
    return program, BlockProgram.of(program, MIXED)


def least_loss(program):
    if not hasattr(program.loss, "targets"):
        return 0.0
    targets = program.loss.targets.numpy()
    return float(program.weights.numpy() @ -(targets * np.log(targets)).sum(axis=0))


@attained
def test_nothing_is_left_to_lose_at_the_interpolant(variant):
    program, blocks = budgeted(variant, 50.0)
    X, bias = dense(MIXED, interpolant(blocks))
    value = objective(program, (X / program.feature_weights).numpy(), bias.numpy())
    assert value == pytest.approx(least_loss(program), rel=1e-12, abs=1e-25)


@attained
def test_no_budget_below_the_norm_of_the_interpolant_attains_the_least_loss(variant):
    _, blocks = budgeted(variant, 50.0)
    norm = nuclear_norm(MIXED, interpolant(blocks))
    for share in (0.999, 1.001):
        root = share * norm / 6
        program, blocks = budgeted(variant, root)
        proof = known_optimum(blocks)
        assert (proof is None) == (share < 1)
        value = cvxpy_solve(program, **TIGHT)[0]
        if share < 1:
            assert value > least_loss(program) + 1e-9
        else:
            assert value == pytest.approx(least_loss(program), abs=1e-6)
            assert proof.certificate.gap < 1e-12
            wanted = least_loss(program)
            assert proof.certificate.objective == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", ["budget", "free bias", "everything in a ball"])
def test_one_hot_cross_entropy_has_always_something_to_lose(name):
    groups, program = CASES[name]
    blocks = BlockProgram.of(program, groups)
    assert interpolant(blocks) is None
    assert known_optimum(blocks) is None


@pytest.mark.parametrize("bias", [None, "free", 0.05])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_zero_stays_from_the_norm_of_its_gradient_on(bias, loss):
    def program_at(multiplier):
        return make_program(
            [9.0, 5.0, 3.0, 1.0],
            decay=(multiplier, multiplier),
            per="class",
            bias=bias,
            loss=loss,
        )

    def best_bias(program):
        b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        if bias is not None:
            optimiser = torch.optim.LBFGS(
                [b], max_iter=500, tolerance_grad=1e-14, tolerance_change=0
            )

            def closure():
                optimiser.zero_grad()
                value = program.data_term(torch.zeros(4, 4, dtype=torch.float64), b)
                value.backward()
                return value

            optimiser.step(closure)
        return b.detach()

    Z = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    program = program_at(1.0)
    b = best_bias(program)
    (gradient,) = torch.autograd.grad(program.data_term(Z, b), Z)
    threshold = float(torch.linalg.matrix_norm(gradient, 2))
    for share, stays in ((0.999, False), (1.001, True)):
        blocks = BlockProgram.of(program_at(share * threshold), SINGLES)
        proof = known_optimum(blocks)
        assert (proof is not None) == stays
        if stays:
            assert proof.certificate.gap < 1e-10
            assert not proof.point.between.any()
            np.testing.assert_allclose(
                proof.point.bias - proof.point.bias.mean(), b - b.mean(), atol=1e-6
            )


def test_the_loss_at_zero_is_that_of_guessing():
    program = make_program([9.0, 5.0, 3.0, 1.0], decay=(1.0, 1.0))
    proof = known_optimum(BlockProgram.of(program, SINGLES))
    assert proof.certificate.objective == pytest.approx(math.log(4), rel=1e-14)
