import math

import numpy as np
import pytest
import torch

from layerpeel.program.convex.factor_space import FactorSpace
from layerpeel.program.convex.local import Local
from tests.program.convex.cases import (
    CASES,
    blocks_of,
    dense,
    generator,
    loss_at,
    normal,
)

every = pytest.mark.parametrize("name", CASES)


def local_at(name, seed=0, size=0.7):
    program, blocks = blocks_of(name)
    space = FactorSpace(blocks, blocks.num_groups)
    y = space.project(size * normal(generator(seed), sum(space.sizes)))
    return program, Local.at(space, space.retract(y))


def lagrangian(program, local, y):
    """The loss, the ridge and the multiplier times half the square of the factors."""
    blocks = local.space.program
    X, bias = dense(blocks.groups, local.space.point(y))
    square = (local.space.is_factor * y).square().sum() / 2
    multiplier = local.multiplier * math.exp(local.columns.log_scale)
    return loss_at(program, X, bias) + multiplier * square


@every
def test_slope_and_hessian_are_those_of_the_lagrangian(name):
    program, local = local_at(name)
    unit = math.exp(local.columns.log_scale)
    y = local.y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(lagrangian(program, local, y), y, create_graph=True)
    wanted = local.space.project(slope.detach())
    np.testing.assert_allclose(unit * local.slope, wanted, rtol=1e-9, atol=1e-12)
    v = local.space.project(normal(generator(1), len(y)))
    (product,) = torch.autograd.grad(slope, y, v)
    wanted = local.space.project(product)
    np.testing.assert_allclose(unit * local.hessian(v), wanted, rtol=1e-9, atol=1e-12)


@every
def test_value_is_the_objective(name):
    program, local = local_at(name, seed=2)
    blocks = local.space.program
    X, bias = dense(blocks.groups, local.space.point(local.y))
    value = float(loss_at(program, X, bias))
    if blocks.multiplier is not None:
        square = float((local.space.is_factor * local.y).square().sum())
        value += 0.5 * blocks.multiplier * square
    assert local.log_value == pytest.approx(math.log(value), rel=1e-10, abs=1e-12)


@every
def test_with_a_ball_the_slope_is_tangent_to_the_sphere(name):
    _, local = local_at(name, seed=3)
    if local.space.radius2 is None:
        assert local.multiplier == local.space.program.multiplier
    else:
        factors = local.space.is_factor * local.y
        assert abs(float(local.slope @ factors)) < 1e-12 * local.scale


def test_no_slope_is_no_residual():
    _, local = local_at("decay per sample")
    space = local.space
    zero = Local.at(space, torch.zeros_like(local.y))
    assert zero.residual == 0.0
    assert local.residual > 1e-3
