import math

import numpy as np
import pytest

from layerpeel.program.pairs import dual_grid
from layerpeel.program.pairs.certificate import relative_gaps
from layerpeel.program.pairs.dual_grid import solve_two_group_grid
from layerpeel.program.pairs.dual_path import solve_two_groups
from layerpeel.program.pairs.two_groups import TwoGroups

SIZES = [(1, 1), (1, 5), (5, 1), (2, 2), (3, 7), (7, 3), (2, 10_000), (10_000, 2)]
GRIDS = {
    "fine": (np.linspace(0, 9, 40), np.geomspace(0.1, 10, 12)),
    "all energies": (np.linspace(0, math.log(1e12), 30), np.geomspace(1e-12, 1e6, 20)),
    "few ratios": (np.array([1e-9, 3.0, 27.0]), np.geomspace(1e-12, 1e6, 20)),
    "coarse": (np.linspace(0, 6, 5), np.geomspace(0.3, 3, 6)),
    "one cell": (np.array([2.0]), np.array([1.0])),
}


def grid_of(majority, minority, grid):
    log_ratios, scales = GRIDS[grid]
    budgets = (majority + minority) * scales
    return solve_two_group_grid(majority, minority, list(log_ratios), list(budgets))


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_cell_is_certified(majority, minority, grid):
    batch = grid_of(majority, minority, grid)
    gaps, _ = relative_gaps(batch)
    assert gaps.shape == tuple(len(axis) for axis in reversed(GRIDS[grid]))
    assert gaps.max() < 1e-15
    np.testing.assert_allclose(batch.nuclear_norm, batch.tau, rtol=1e-14)
    assert min(batch.alpha.min(), batch.beta.min(), batch.rho.min()) >= 0


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("grid", ["fine", "few ratios"])
def test_agrees_with_the_bracketed_search(majority, minority, grid):
    batch = grid_of(majority, minority, grid)
    generator = np.random.default_rng(0)
    scalars = np.stack([batch.alpha, batch.beta, batch.rho, batch.cos, batch.sin])
    for _ in range(5):
        cell = tuple(generator.integers(0, n) for n in batch.tau.shape)
        program = TwoGroups(
            majority, minority, float(batch.log_ratio[cell]), float(batch.tau[cell])
        )
        expected = solve_two_groups(program).scalars
        # Next to a threshold a scalar is small against the budget and loses digits.
        small = 1e-9 * program.tau / (majority + minority)
        np.testing.assert_allclose(
            scalars[:, *cell], expected, rtol=1e-9, atol=min(small, 1e-9)
        )


def test_balanced_cells_are_the_closed_form():
    batch = solve_two_group_grid(3, 4, [0.0], [6e-6, 6.0, 600.0])
    expected = batch.tau / 6
    for spread in (batch.alpha, batch.beta, batch.rho):
        np.testing.assert_allclose(spread, expected, rtol=1e-13)


def test_what_newton_leaves_is_searched(monkeypatch):
    expected = grid_of(3, 7, "coarse")
    searched = []

    def counted(program):
        searched.append(program)
        return solve_two_groups(program)

    monkeypatch.setattr(dual_grid, "MOST_STEPS", 1)
    monkeypatch.setattr(dual_grid, "solve_two_groups", counted)
    batch = grid_of(3, 7, "coarse")
    assert len(searched) > 10
    np.testing.assert_allclose(batch.alpha, expected.alpha, rtol=1e-11)
    np.testing.assert_allclose(batch.beta, expected.beta, rtol=1e-9, atol=1e-12)


def test_newton_does_the_work_on_a_fine_grid(monkeypatch):
    def never(program):
        raise AssertionError(program)

    monkeypatch.setattr(dual_grid, "solve_two_groups", never)
    for majority, minority in ((5, 5), (3, 7), (7, 3), (1, 4)):
        batch = grid_of(majority, minority, "fine")
        assert batch.tau.shape == (12, 40)
