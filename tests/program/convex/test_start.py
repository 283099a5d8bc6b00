import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from layerpeel.program.convex.blocks import BlockProgram
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.start import (
    floor_of,
    starting_factors,
    starting_point,
)
from tests.program.convex.cases import (
    CASES,
    MIXED,
    blocks_of,
    case,
    dense,
    expanded,
    nuclear_norm,
)

EVERY = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("decay", [(0.01, 0.01), (0.05, 0.02), (0.3, 0.3)])
def test_every_class_solves_its_own_program(loss, decay):
    groups, program = case(MIXED, [20, 5, 1], loss=loss, decay=decay, per="class")
    gaps = starting_point(BlockProgram.of(program, groups)).spread
    K, c = program.num_classes, program.regulariser.multiplier
    for k, gap in enumerate(expanded(groups, gaps.tolist())):
        pi, delta = float(program.weights[k]), float(program.feature_weights[k])

        def cost(a, pi=pi, delta=delta):
            own = (a - 1) ** 2 / 2
            if loss == "cross_entropy":
                own = np.log1p((K - 1) * np.exp(-a))
            return pi * own + c * delta * a

        best = minimize_scalar(
            cost, bounds=(0, 50), method="bounded", options={"xatol": 1e-10}
        )
        assert gap == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("energy", [1e-3, 0.1, 0.5])
def test_a_budget_is_shared_at_equal_marginal_gains(loss, energy):
    groups, program = case(MIXED, [20, 5, 1], loss=loss, energy=(energy, energy))
    blocks = BlockProgram.of(program, groups)
    gaps = starting_point(blocks).spread
    assert float(blocks.sizes @ gaps) == pytest.approx(blocks.budget, rel=1e-6)
    K, pi = program.num_classes, blocks.log_weights.exp()
    gains = pi * (1 - gaps)
    if loss == "cross_entropy":
        gains = pi * (K - 1) / (gaps.exp() + K - 1)
    marginal = gains[gaps > 0]
    torch.testing.assert_close(marginal, marginal[:1].expand_as(marginal))
    assert bool((gains[gaps == 0] <= marginal[0] * (1 + 1e-6)).all())


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("energy", [1e-6, 1e-13])
def test_a_tiny_budget_is_spent_whole(loss, energy):
    groups, program = case(MIXED, [20, 5, 1], loss=loss, energy=(energy, energy))
    blocks = BlockProgram.of(program, groups)
    gaps = starting_point(blocks).spread
    assert float(blocks.sizes @ gaps) == pytest.approx(blocks.budget, rel=1e-6)


@EVERY
def test_the_point_is_the_separable_matrix(name):
    program, blocks = blocks_of(name)
    point = starting_point(blocks)
    gaps = torch.from_numpy(expanded(blocks.groups, point.spread.tolist()))
    expected = torch.diag(gaps)
    X, _ = dense(blocks.groups, point)
    if blocks.targets is not None:
        unseen = 1 / program.loss.scale
        expected = expected - torch.outer(unseen, unseen * gaps) / unseen.square().sum()
        # All other classes have the same input of the softmax.
        inputs = program.loss.scale[:, None] * X
        others = inputs.T[~torch.eye(len(X), dtype=torch.bool)].view(len(X), -1)
        torch.testing.assert_close(others, others[:, :1].expand_as(others))
    torch.testing.assert_close(X, expected, rtol=1e-12, atol=1e-12)


def test_a_free_bias_starts_against_the_offsets():
    groups, program = case(
        MIXED,
        [20, 5, 1],
        energy=(1, 1),
        offset=[1, 2, -3],
        scale=[1, 2, 4],
        bias="free",
    )
    blocks = BlockProgram.of(program, groups)
    _, bias = dense(groups, starting_point(blocks))
    inputs = program.loss.scale * bias + program.loss.offset
    torch.testing.assert_close(inputs, torch.zeros_like(inputs), rtol=0, atol=1e-12)


@EVERY
def test_no_direction_that_the_loss_sees_starts_at_zero(name):
    _, blocks = blocks_of(name)
    space, y = starting_factors(blocks)
    torch.testing.assert_close(space.project(y), y)
    point = space.point(y)
    hidden = (blocks.common is not None) + (blocks.constant is not None)
    values = torch.linalg.svdvals(point.between)
    assert int((values > 1e-6 * values[0]).sum()) >= blocks.num_groups - hidden
    assert bool((point.spread[blocks.sizes > 1] > 0).all())


@EVERY
def test_the_floor_is_a_small_share_of_the_largest(name):
    _, blocks = blocks_of(name)
    point = starting_point(blocks)
    directions = Directions.of(point.between)
    floor = floor_of(blocks, point, directions)
    weight = float(blocks.feature_weights.max())
    largest = float(torch.cat([directions.values, point.spread]).max())
    assert 0 < floor <= 0.1 * max(largest, weight)
    assert np.isfinite(nuclear_norm(blocks.groups, point))
    huge = point._replace(spread=1e6 + point.spread)
    assert floor_of(blocks, huge, directions) <= 2 * weight


def test_large_programs_start_with_the_directions_that_are_used():
    K = 80
    groups = tuple((k,) for k in range(K))
    # Rare classes do not pay at this multiplier: they have no direction of their own.
    counts = np.where(np.arange(K) < 20, 1000.0, 1.0) + np.arange(K) / K
    _, program = case(groups, counts, decay=(0.005, 0.005), per="class")
    space, y = starting_factors(BlockProgram.of(program, groups))
    assert 20 <= space.rank <= 20 + 3
    assert len(y) == 2 * K * space.rank
