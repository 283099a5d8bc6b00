import numpy as np
import pytest
import torch

from layerpeel.program.convex.blocks import BlockProgram
from layerpeel.program.convex.directions import Directions
from layerpeel.program.convex.factor_space import FactorSpace
from layerpeel.program.convex.missing import with_missing
from layerpeel.program.convex.newton import minimise
from layerpeel.program.convex.proof import Proof
from layerpeel.program.convex.start import starting_point
from tests.program.convex.cases import MIXED, SINGLES, expanded
from tests.program.reference import cvxpy_solve, make_program

TAIL = [40.0, 25.0, 14.0, 8.0]
PROGRAMS = {
    "budget": make_program(TAIL, energy=(1.0, 3.0)),
    "penalty": make_program(TAIL, decay=(0.02, 0.01)),
    "ridge": make_program(TAIL, energy=(1.0, 3.0), bias=0.1),
    "squared": make_program(TAIL, loss="mse", decay=(0.005, 0.005), bias=0.1),
}


def starved(program):
    """Factors of rank one, and where they end."""
    blocks = BlockProgram.of(program, SINGLES)
    point = starting_point(blocks)
    directions = Directions.of(point.between).kept(torch.arange(1))
    space = FactorSpace(blocks, 1)
    y = space.project(space.factors(directions, point.spread, point.bias))
    y, _ = minimise(space, y, 1e-9, 200)
    return blocks, space, y


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_rank_too_small_grows_to_the_optimum(name):
    program = PROGRAMS[name]
    blocks, space, y = starved(program)
    ranks, gaps = [1], []
    for _ in range(6):
        proof = Proof.of(blocks, space, y)
        gaps.append(proof.certificate.gap)
        wider = with_missing(space, proof, 1e-8)
        if wider is None:
            break
        space, y = wider
        ranks.append(space.rank)
        y, _ = minimise(space, space.project(y), 1e-10, 200)
    assert ranks[-1] > 1
    assert gaps[0] > 1e-3
    assert gaps[-1] < 1e-7
    value = cvxpy_solve(program)[0]
    assert proof.certificate.objective == pytest.approx(value, rel=1e-5)


def test_a_spread_stuck_at_zero_is_woken():
    counts = expanded(MIXED, [20.0, 5.0, 1.0])
    program = make_program(counts, decay=(1e-3, 1e-3))
    blocks = BlockProgram.of(program, MIXED)
    point = starting_point(blocks)
    space = FactorSpace(blocks, 3)
    # At a spread of zero, its slope is zero too.
    none = torch.zeros_like(point.spread)
    y = space.project(space.factors(Directions.of(point.between), none, none))
    y, _ = minimise(space, y, 1e-9, 200)
    proof = Proof.of(blocks, space, y)
    assert not proof.point.spread.any()
    wider, woken = with_missing(space, proof, 1e-8)
    assert (wider.point(woken).spread[[0, 2]] > 0).all()


def test_nothing_is_missing_at_an_optimum():
    program = PROGRAMS["budget"]
    blocks = BlockProgram.of(program, SINGLES)
    space = FactorSpace(blocks, 4)
    point = starting_point(blocks)
    directions = Directions.of(point.between)
    raised = directions._replace(values=directions.values.clamp(min=0.1))
    y = space.project(space.factors(raised, point.spread, point.bias))
    y, _ = minimise(space, y, 1e-11, 200)
    proof = Proof.of(blocks, space, y)
    assert proof.certificate.gap < 1e-9
    assert with_missing(space, proof, 1e-8) is None


def test_new_directions_go_against_the_gradient():
    blocks, space, y = starved(PROGRAMS["penalty"])
    proof = Proof.of(blocks, space, y)
    wider, grown = with_missing(space, proof, 1e-8)
    gradient = blocks.gradient(blocks.columns(proof.point)).between
    change = wider.point(grown).between - proof.point.between
    assert float((gradient * change).sum()) < 0
    np.testing.assert_allclose(proof.directions.left.T @ change, 0, atol=1e-12)
