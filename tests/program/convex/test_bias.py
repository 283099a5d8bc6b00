import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from layerpeel.program.convex.bias import centred_bias, stationary_bias
from tests.program.convex.cases import (
    CASES,
    blocks_of,
    dense,
    generator,
    loss_at,
    random_point,
)

BIASED = [name for name, (_, program) in CASES.items() if program.ridge is not None]


@pytest.mark.parametrize("name", BIASED)
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_no_other_bias_has_a_smaller_loss(name, scale):
    program, blocks = blocks_of(name)
    point = random_point(blocks, generator(1), scale)
    X, bias = dense(blocks.groups, stationary_bias(blocks, point))

    def value_and_slope(b):
        b = torch.tensor(b, requires_grad=True)
        value = loss_at(program, X, b)
        return value.item(), torch.autograd.grad(value, b)[0].numpy()

    best = minimize(
        value_and_slope,
        np.zeros(program.num_classes),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    value, slope = value_and_slope(bias.numpy())
    assert value <= best.fun + 1e-12
    assert value == pytest.approx(best.fun, rel=1e-7)
    assert np.abs(slope).max() < 1e-13


@pytest.mark.parametrize("name", BIASED)
@pytest.mark.parametrize("distance", [0.3, 1.0])
def test_is_found_from_some_way_off(name, distance):
    _, blocks = blocks_of(name)
    rng = generator(2)
    point = random_point(blocks, rng, 0.1)
    near = stationary_bias(blocks, point)
    far = point._replace(bias=distance * random_point(blocks, rng).bias)
    found = stationary_bias(blocks, far).bias
    torch.testing.assert_close(found, near.bias, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", BIASED)
def test_is_still_at_the_solution(name):
    _, blocks = blocks_of(name)
    point = stationary_bias(blocks, random_point(blocks, generator(3)))
    again = stationary_bias(blocks, point).bias
    torch.testing.assert_close(again, point.bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BIASED)
def test_centring_leaves_the_loss_and_the_least_bias(name):
    program, blocks = blocks_of(name)
    point = random_point(blocks, generator(4))
    centred = centred_bias(blocks, point)
    (X, before), (_, after) = (dense(blocks.groups, p) for p in (point, centred))
    if blocks.targets is None:
        assert centred.bias is point.bias
        return
    pi = program.weights
    losses = [pi @ program.loss.losses(X, b) for b in (before, after)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-12)
    # The softmax does not see one number added to all of its inputs.
    unseen = 1 / program.loss.scale
    assert abs(float(after @ unseen)) < 1e-12
    assert after.norm() < before.norm()
