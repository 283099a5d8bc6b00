import pytest
import torch

from layerpeel.program.convex.blocks import Point
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace
from tests.program.convex.cases import (
    CASES,
    assert_points_equal,
    blocks_of,
    generator,
    inner,
    normal,
    nuclear_norm,
    random_point,
)

EVERY = pytest.mark.parametrize("name", CASES)


def space_of(name, rank=2):
    return FactorSpace(blocks_of(name)[1], rank)


def random_factors(space, rng):
    return normal(rng, sum(space.sizes))


def written_out(space, y):
    """The point of some factors, from the definition."""
    left, right, spread, _, bias = space.split(y)
    sizes = space.program.sizes
    full = torch.zeros_like(sizes)
    full[sizes > 1] = spread**2 / (2 * (sizes[sizes > 1] - 1))
    return Point(
        full,
        torch.einsum("gr,hr->gh", left, right),
        bias if len(bias) else torch.zeros_like(sizes),
    )


@EVERY
def test_points_tangents_and_pulls_agree_with_the_definition(name):
    space, rng = space_of(name), generator(1)
    y, v = random_factors(space, rng), random_factors(space, rng)
    assert_points_equal(space.program, space.point(y), written_out(space, y))
    tangent = torch.autograd.functional.jvp(
        lambda u: tuple(written_out(space, u)), y, v
    )[1]
    tangent = Point(*tangent)
    assert_points_equal(space.program, space.tangent(y, v), tangent)
    gradient = random_point(space.program, rng)
    paired = inner(space.program, tangent, gradient)
    assert float(space.pull(y, gradient) @ v) == pytest.approx(paired, rel=1e-12)


@EVERY
def test_parts_are_split_and_joined(name):
    space = space_of(name)
    y = random_factors(space, generator(2))
    assert torch.equal(space.join(space.split(y)), y)
    bias = space.split(space.is_factor).bias
    assert len(bias) == space.biased
    assert not bias.any()
    assert float(space.is_factor.sum()) == len(y) - space.biased


@EVERY
def test_balanced_factors_cost_the_nuclear_norm(name):
    space, rng = space_of(name, rank=2), generator(3)
    point = random_point(space.program, rng, 1e-2)
    directions = Directions.of(point.between).kept(torch.arange(2))
    point = point._replace(between=directions.matrix)
    y = space.factors(directions, point.spread, point.bias)
    found = space.point(y)
    assert_points_equal(space.program, found, point)
    left, right, spread, slack, _ = space.split(y)
    squares = sum(float(part.square().sum()) for part in (left, right, spread))
    norm = nuclear_norm(space.program.groups, point)
    assert squares / 2 == pytest.approx(norm, rel=1e-12)
    if len(slack):
        rest = float(slack.square()) / 2
        assert norm + rest == pytest.approx(space.program.budget, rel=1e-12)


@EVERY
def test_balancing_keeps_what_is_seen_and_costs_no_more(name):
    space, rng = space_of(name), generator(4)
    y = space.project(random_factors(space, rng))
    left = space.split(y).left
    left.mul_(10)  # far from balanced, in place
    better = space.balanced(y)
    assert_points_equal(space.program, space.point(better), space.point(y))
    parts, bias = space.split(better), space.split(y).bias
    first, second = parts.left.T @ parts.left, parts.right.T @ parts.right
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(parts.bias, bias)
    costs = [float((space.is_factor * x).norm()) for x in (better, y)]
    if len(parts.slack):
        assert costs[0] == pytest.approx(costs[1], rel=1e-12)  # saved as slack
    else:
        assert costs[0] < costs[1]


@EVERY
def test_retracting_ends_on_the_sphere_and_keeps_the_bias(name):
    space = space_of(name)
    y = space.project(random_factors(space, generator(5)))
    there = space.retract(y)
    torch.testing.assert_close(space.split(there).bias, space.split(y).bias)
    if space.radius2 is None:
        return
    square = float((space.is_factor * there).square().sum())
    assert square == pytest.approx(2 * space.program.budget, rel=1e-12)
    norm = nuclear_norm(space.program.groups, space.point(there))
    assert norm <= space.program.budget * (1 + 1e-12)
    torch.testing.assert_close(space.retract(there), there)


@EVERY
def test_projecting_drops_only_what_the_loss_does_not_see(name):
    space = space_of(name)
    program = space.program
    y = random_factors(space, generator(6))
    projected = space.project(y)
    torch.testing.assert_close(space.project(projected), projected)
    assert float(projected @ (y - projected)) == pytest.approx(0.0, abs=1e-12)
    if program.constant is not None and program.ridge == 0:
        # What a free bias makes up for is put into it, to compare the losses.
        between = space.point(y).between
        rows = between @ program.constant
        root = (program.sizes @ program.feature_weights.square()).sqrt()
        bias = space.point(projected).bias + rows / root
    else:
        bias = space.point(projected).bias
    if space.program.saturates and space.radius2 is not None:
        assert torch.equal(space.split(projected).slack, space.split(y).slack)
    before = program.columns(space.point(y)).log_value
    after = program.columns(space.point(projected)._replace(bias=bias)).log_value
    assert after == pytest.approx(before, abs=1e-11)
