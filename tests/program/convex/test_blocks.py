import math
from dataclasses import replace

import pytest
import torch

from layerpeel.program.convex.blocks import Point
from layerpeel.program.convex.columns import Blocks
from tests.program.convex.cases import (
    CASES,
    assert_points_equal,
    blocks_of,
    dense,
    gathered,
    generator,
    inner,
    loss_at,
    normal,
    random_point,
)

EVERY = pytest.mark.parametrize("name", CASES)


def smooth_part(program):
    """The loss without the ridge."""
    return replace(program, ridge=None if program.ridge is None else 0.0)


def scaled(point, unit):
    return Point(*(unit * part for part in point))


@EVERY
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_value_and_derivatives_are_those_of_the_dense_program(name, scale):
    program, blocks = blocks_of(name)
    groups, rng = blocks.groups, generator(1)
    point, direction = random_point(blocks, rng, scale), random_point(blocks, rng)
    columns = blocks.columns(point)
    unit = math.exp(columns.log_scale)
    at, along = dense(groups, point), dense(groups, direction)

    def loss(X, b):
        return loss_at(smooth_part(program), X, b)

    assert columns.value * unit == pytest.approx(float(loss(*at)), rel=1e-12)
    penalty = unit * blocks.ridge_penalty(columns, point)
    total = float(loss_at(program, *at))
    assert columns.value * unit + penalty == pytest.approx(total, rel=1e-12)
    wanted = gathered(groups, *torch.autograd.functional.jacobian(loss, at))
    assert_points_equal(blocks, scaled(blocks.gradient(columns), unit), wanted)
    wanted = gathered(groups, *torch.autograd.functional.vhp(loss, at, along)[1])
    product = blocks.curvature(columns, direction)
    assert_points_equal(blocks, scaled(product, unit), wanted)


@EVERY
def test_the_gradient_is_group_symmetric_so_that_its_coordinates_are_all_of_it(name):
    program, blocks = blocks_of(name)
    groups = blocks.groups
    at = dense(groups, random_point(blocks, generator(2)))
    gradient, slope = torch.autograd.functional.jacobian(
        lambda X, b: loss_at(program, X, b), at
    )
    again, slope_again = dense(groups, gathered(groups, gradient, slope))
    torch.testing.assert_close(again, gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope_again, slope, rtol=1e-12, atol=1e-12)


@EVERY
def test_the_adjoint_is_that_of_the_linear_map_to_the_logits(name):
    _, blocks = blocks_of(name)
    rng, sizes = generator(3), blocks.sizes
    multiplicity = sizes[:, None] - torch.eye(len(sizes)).to(sizes)
    for _ in range(5):
        point = random_point(blocks, rng)
        residual = Blocks(normal(rng, len(sizes)), normal(rng, *multiplicity.shape))
        logits = blocks._forward(point)
        columns = logits.own * residual.own
        columns = columns + (multiplicity * logits.others * residual.others).sum(dim=0)
        paired = inner(blocks, point, blocks.adjoint(residual))
        assert paired == pytest.approx(float(sizes @ columns), rel=1e-11, abs=1e-11)


@EVERY
def test_the_spectral_norm_is_that_of_the_dense_gradient(name):
    program, blocks = blocks_of(name)
    groups = blocks.groups
    point = random_point(blocks, generator(4))
    columns = blocks.columns(point)
    gradient, _ = torch.autograd.functional.jacobian(
        lambda X, b: loss_at(program, X, b), dense(groups, point)
    )
    norm = blocks.spectral_norm(blocks.gradient(columns))
    expected = float(torch.linalg.matrix_norm(gradient, 2))
    assert norm * math.exp(columns.log_scale) == pytest.approx(expected, rel=1e-11)


@EVERY
def test_the_loss_does_not_see_the_common_and_the_constant_parts(name):
    _, blocks = blocks_of(name)
    rng = generator(5)
    point = random_point(blocks, rng)
    value = blocks.columns(point).log_value
    if blocks.common is not None:
        between = point.between + torch.outer(
            blocks.common, normal(rng, blocks.num_groups)
        )
        moved = point._replace(between=between, bias=point.bias + blocks.common)
        assert blocks.columns(moved).log_value == pytest.approx(value, abs=1e-11)
    if blocks.constant is not None:
        rows = normal(rng, blocks.num_groups)
        between = point.between + torch.outer(rows, blocks.constant)
        root = (blocks.sizes @ blocks.feature_weights.square()).sqrt()
        moved = point._replace(between=between, bias=point.bias - rows / root)
        assert blocks.columns(moved).log_value == pytest.approx(value, abs=1e-11)


@EVERY
def test_entry_and_bias_weights_are_diagonals_of_the_dense_hessian(name):
    program, blocks = blocks_of(name)
    groups, G = blocks.groups, blocks.num_groups
    point = random_point(blocks, generator(6))
    columns = blocks.columns(point)
    unit = math.exp(columns.log_scale)
    K = program.num_classes
    full = torch.autograd.functional.hessian(
        lambda X: loss_at(program, X, dense(groups, point)[1]), dense(groups, point)[0]
    )
    curvature = full.reshape(K * K, K * K).diagonal().reshape(K, K)
    weights = unit * blocks.entry_weights(columns)
    for h in range(G):
        for g in range(G):
            block = curvature[list(groups[h])][:, list(groups[g])]
            assert float(weights[h, g]) == pytest.approx(float(block.mean()), rel=1e-9)
    if blocks.ridge is not None:
        slopes = torch.autograd.functional.hessian(
            lambda b: loss_at(program, dense(groups, point)[0], b),
            dense(groups, point)[1],
        )
        first = [classes[0] for classes in groups]
        diagonal = slopes.diagonal()[first]
        torch.testing.assert_close(
            unit * blocks.bias_weights(columns), diagonal, rtol=1e-7, atol=0.0
        )


def test_a_ridge_is_infinite_in_the_unit_of_a_loss_that_underflows():
    _, blocks = blocks_of("everything in a ball")
    none = torch.zeros(3, dtype=torch.float64)
    near, far = (Point(none + s, s * torch.eye(3).to(none), none) for s in (1, 3000))
    assert not blocks.holds_bias(blocks.columns(near))
    columns = blocks.columns(far)
    assert blocks.holds_bias(columns)
    assert blocks.ridge_in_unit(columns) == pytest.approx(1e100, rel=1e-9)
