import math

import pytest
import torch

from layerpeel.program.convex.certificate import certify
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace
from layerpeel.program.convex.local import Local
from layerpeel.program.convex.newton import minimise
from layerpeel.program.convex.proof import Proof
from tests.program.convex.cases import CASES, blocks_of, generator, normal
from tests.program.convex.test_certificate import optimum

EVERY = pytest.mark.parametrize("name", CASES)


def random_start(name, seed):
    blocks = blocks_of(name)[1]
    space = FactorSpace(blocks, blocks.num_groups)
    return space, space.project(normal(generator(seed), sum(space.sizes)))


@EVERY
@pytest.mark.parametrize("seed", [1, 2])
def test_descends_to_the_optimum_from_anywhere(name, seed):
    space, y = random_start(name, seed)
    found, stats = minimise(space, y, 1e-9, 300)
    value = math.exp(Local.at(space, found).log_value)
    assert value == pytest.approx(optimum(name)[0], rel=1e-6)
    assert stats.residual == Local.at(space, found).residual
    assert stats.residual < 1e-7
    assert 0 < stats.steps <= stats.products


@EVERY
def test_every_further_step_lowers_the_objective_and_the_limit_holds(name):
    values = []
    for most in range(5):
        space, y = random_start(name, 3)
        found, stats = minimise(space, y, 1e-12, most)
        assert stats.steps <= most
        values.append(Local.at(space, found).log_value)
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", ["budget", "decay per sample", "squared, ridge"])
def test_the_last_digits_are_reached(name):
    space, y = random_start(name, 4)
    found, _ = minimise(space, y, 1e-11, 300)
    assert Proof.of(space.program, space, found).certificate.gap < 1e-8


def test_nothing_is_done_at_the_solution():
    space, y = random_start("decay per class", 5)
    y, _ = minimise(space, y, 1e-9, 300)
    again, stats = minimise(space, y, 1e-8, 300)
    assert (stats.steps, stats.products) == (0, 0)
    torch.testing.assert_close(again, y)
    # And it is the solution: stationary factors of full rank are optimal.
    point = space.point(y)
    directions = Directions.of(point.between)
    assert certify(space.program, point, directions)[0].gap < 1e-6
