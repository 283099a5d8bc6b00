import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics.rank import (
    effective_rank,
    numerical_rank,
    participation_ratio,
    ranks,
    stable_rank,
)
from tests.measurement.metrics.vectors import random_rows, turn, with_gaps


def with_spectrum(*singular, rows=6, width=9):
    """A matrix with these singular values."""
    middle = torch.zeros(rows, width).double()
    middle[range(len(singular)), range(len(singular))] = torch.tensor(singular).double()
    return turn(rows, 1) @ middle @ turn(width, 2)


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_a_simplex_has_one_dimension_less_than_classes(classes):
    found = ranks(7 * simplex_etf(classes, 25))
    assert found.numerical == classes - 1
    for value in (found.effective, found.participation, found.stable):
        assert value == pytest.approx(classes - 1, rel=1e-12)


def test_spectra_in_closed_form():
    matrix = with_spectrum(3.0, 1.0, 1.0)
    p, q = np.array([3, 1, 1]) / 5, np.array([9, 1, 1]) / 11
    entropies = {"singular": -(p * np.log(p)).sum(), "eigen": -(q * np.log(q)).sum()}
    for spectrum, entropy in entropies.items():
        rank = effective_rank(matrix, spectrum=spectrum)
        assert rank == pytest.approx(np.exp(entropy), rel=1e-12)
    assert participation_ratio(matrix) == pytest.approx(121 / 83)
    assert participation_ratio(matrix, spectrum="singular") == pytest.approx(25 / 11)
    assert stable_rank(matrix) == pytest.approx(11 / 9)
    assert numerical_rank(matrix) == 3
    assert ranks(matrix).effective == effective_rank(matrix)


def test_a_small_second_direction_in_first_order():
    e = 1e-4
    matrix = with_spectrum(1.0, e)
    assert participation_ratio(matrix) - 1 == pytest.approx(2 * e**2, rel=1e-6)
    assert stable_rank(matrix) - 1 == pytest.approx(e**2, rel=1e-6)
    first_order = e * (1 - np.log(e))
    assert effective_rank(matrix) - 1 == pytest.approx(first_order, rel=1e-3)
    assert [numerical_rank(matrix, cutoff=c) for c in (1e-5, 1e-3, 2.0)] == [2, 1, 0]


def test_rounding_is_no_direction_and_scale_does_not_matter():
    matrix = random_rows(30, 3) @ random_rows(3, 40, seed=1)
    for scale in (1e-200, 1e-6, 1.0, 1e6):
        found = ranks(scale * matrix)
        assert found.numerical == 3
        assert found.effective == pytest.approx(ranks(matrix).effective)
        assert found.stable == pytest.approx(ranks(matrix).stable)


def test_of_a_covariance_singular_values_are_eigenvalues():
    rows = random_rows(8, 5)
    covariance = rows.T @ rows
    of_vectors = effective_rank(rows, spectrum="eigen")
    assert effective_rank(covariance) == pytest.approx(of_vectors)
    assert participation_ratio(covariance, spectrum="singular") == pytest.approx(
        participation_ratio(rows)
    )


def test_classes_without_samples_are_left_out():
    rows = random_rows(4, 6)
    assert ranks(with_gaps(rows, 0, 2)) == ranks(rows)
    assert ranks(rows[:1]).numerical == 1


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_zero_has_rank_zero_and_no_other(shape):
    zero = torch.zeros(shape).double()
    assert numerical_rank(zero) == 0
    for function in (effective_rank, participation_ratio, stable_rank):
        with pytest.warns(UndefinedWarning, match="of zero is undefined"):
            assert np.isnan(function(zero))


def test_rounding_of_centred_vectors_is_cut():
    noisy = simplex_etf(4, 9) + 1e-13 * random_rows(4, 9)
    assert (ranks(noisy).numerical, ranks(noisy, most=3).numerical) == (4, 3)


def test_all_ranks_of_zero_warn_once():
    with pytest.warns(UndefinedWarning, match="Ranks") as seen:
        found = ranks(torch.zeros(2, 3).double())
    assert len(seen) == 1
    assert found.numerical == 0
    assert np.isnan([found.effective, found.participation, found.stable]).all()


def test_unknown_spectrum_is_listed():
    for function in (effective_rank, participation_ratio):
        with pytest.raises(ValueError, match=r"`spectrum` must be one of 'singular'"):
            function(torch.eye(2).double(), spectrum="values")


def test_ranks_count_nothing_below_the_resolution():
    rows = torch.diag(torch.tensor([1.0, 1e-6, 0.0]).double())
    assert ranks(rows).numerical == 2
    assert ranks(rows, resolution=1e-5).numerical == 1
