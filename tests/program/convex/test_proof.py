import numpy as np
import pytest
import torch

from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace
from layerpeel.program.convex.proof import Proof
from tests.program.convex.cases import (
    CASES,
    blocks_of,
    dense,
    generator,
    normal,
    nuclear_norm,
)
from tests.program.reference import objective

every = pytest.mark.parametrize("name", CASES)


def proved(name, seed=0):
    program, blocks = blocks_of(name)
    space = FactorSpace(blocks, blocks.num_groups)
    y = space.project(normal(generator(seed), sum(space.sizes)))
    return program, blocks, Proof.of(blocks, space, space.retract(y))


@every
def test_says_the_same_of_coordinates_spectrum_and_bias(name):
    program, blocks, proof = proved(name)
    spectrum, bias = proof.spectrum(blocks.groups), proof.bias(blocks.groups)
    X, wanted = dense(blocks.groups, proof.point)
    np.testing.assert_allclose(spectrum.matrix, X, rtol=0, atol=1e-12)
    np.testing.assert_allclose(bias, wanted, rtol=0, atol=1e-12)
    assert spectrum.nuclear_norm == pytest.approx(
        nuclear_norm(blocks.groups, proof.point)
    )
    value = objective(program, (X / program.feature_weights).numpy(), bias.numpy())
    assert proof.certificate.objective == pytest.approx(value, rel=1e-10)
    assert proof.certificate.lower_bound <= proof.certificate.objective
    if blocks.budget is not None:
        assert spectrum.nuclear_norm <= blocks.budget * (1 + 1e-14)


def test_what_is_tiny_becomes_exactly_zero():
    _, blocks = blocks_of("decay per sample")
    values = torch.tensor([2.0, 1e-13, 1e-3], dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)
    spread = torch.tensor([1e-14, 0.0, 0.5], dtype=torch.float64)
    space = FactorSpace(blocks, 3)
    y = space.factors(Directions(unit, values, unit), spread, torch.zeros_like(spread))
    proof = Proof.of(blocks, space, y)
    assert proof.point.spread.tolist() == pytest.approx([0.0, 0.0, 0.5])
    assert float(proof.point.spread[0]) == 0.0
    assert proof.directions.values.tolist() == pytest.approx([2.0, 1e-3])


def test_a_free_bias_is_the_best_one():
    program, blocks, proof = proved("free bias")
    X, bias = dense(blocks.groups, proof.point)
    b = bias.clone().requires_grad_()
    value = program.data_term(X / program.feature_weights, b)
    (slope,) = torch.autograd.grad(value, b)
    assert float(slope.abs().max()) < 1e-14
    assert float(bias.sum()) == pytest.approx(0.0, abs=1e-12)
