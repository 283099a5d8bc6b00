import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.measurement.clones.reconstruction.semidefinite import (
    first_drowned,
    semidefinite_cholesky,
)
from tests.measurement.clones.layers import normal, seeded


@pytest.mark.parametrize("width", [1, 3, 63, 64, 65, 130])
@pytest.mark.parametrize("rank", [1, 40, 200])
def test_the_factor_is_one_of_semidefinite_matrices_too(width, rank):
    rows = normal(rank, width, seed=width)
    matrix = rows.T @ rows
    factor = semidefinite_cholesky(matrix, 1e-12, rank)
    assert torch.allclose(factor @ factor.T, matrix, atol=1e-9 * float(matrix.max()))
    assert not bool(factor.triu(1).any())
    assert int((factor.diagonal() > 0).sum()) == min(rank, width)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 140))
def test_rows_within_the_noise_of_a_combination_are_dropped(seed, width):
    rank = 1 + seed % width
    generator = seeded(seed)
    mixing = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    size = 10 ** torch.rand(width, generator=generator, dtype=torch.float64)
    noise = 1e-10 * size**2
    drawn = torch.randn(width, width, generator=generator, dtype=torch.float64)
    # Errors of each row have a tenth of the deviation that is allowed for.
    errors = 0.1 * drawn * (noise / width)[:, None].sqrt()
    rows = torch.cat([mixing, torch.zeros(width, width)], dim=1)
    rows[:, rank:] = errors
    factor = semidefinite_cholesky(rows @ rows.T, 1e-15, noise=noise)
    assert int((factor.diagonal() > 0).sum()) <= rank
    left = rows @ rows.T - factor @ factor.T
    assert float(left.abs().max()) <= 1e-2 * float((rows @ rows.T).max())


def test_without_enough_noise_every_row_is_kept():
    rows = normal(90, 70)
    matrix = rows.T @ rows
    noise = torch.full((70,), 1e-9, dtype=torch.float64)
    whole = torch.linalg.cholesky(matrix)
    assert torch.equal(semidefinite_cholesky(matrix, 1e-14, noise=noise), whole)
    assert first_drowned(whole, noise) is None


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_the_noise_of_a_pivot_is_that_of_all_rows_in_it(share):
    # The last row is 3 times the first, less 2 times the second, and a pivot of 4.
    factor = torch.tensor([[1.0, 0, 0], [0, 1, 0], [3, -2, 2]]).double()
    noise = torch.tensor([0.2, 0.4, 0.6]).double()
    noise *= share * 4 / (9 * 0.2 + 4 * 0.4 + 0.6)
    assert first_drowned(factor, noise) == (2 if share > 1 else None)
    matrix = factor @ factor.T
    found = semidefinite_cholesky(matrix, 1e-12, noise=noise)
    assert bool(found[2, 2] == 0) == (share > 1)
