import math

import numpy as np
import pytest
import torch

from layerpeel.geometry import (
    general_orthogonal_frame,
    orthogonal_frame,
    simplex_etf,
)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 101])
@pytest.mark.parametrize("extra", [-1, 0, 4])
def test_simplex_frame_has_equal_angles_in_every_width(num_classes, extra):
    K, width = num_classes, num_classes + extra
    frame = simplex_etf(K, width)
    assert frame.shape == (K, width)
    assert frame.dtype == torch.float64
    expected = np.where(np.eye(K), 1.0, -1 / (K - 1))
    np.testing.assert_allclose(frame @ frame.T, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(frame.sum(0), 0, atol=1e-13)


def test_simplex_frame_is_tight_on_its_span():
    frame = simplex_etf(5, 4)
    np.testing.assert_allclose(frame.T @ frame, 5 / 4 * np.eye(4), atol=1e-14)


def test_two_classes_are_opposite_numbers():
    assert simplex_etf(2, 1).abs().flatten().tolist() == pytest.approx([1.0, 1.0])
    assert float(simplex_etf(2, 1).sum()) == pytest.approx(0.0, abs=1e-15)


def test_default_width_is_the_number_of_classes():
    assert simplex_etf(4).shape == (4, 4)
    assert orthogonal_frame(4).shape == (4, 4)
    assert general_orthogonal_frame([1, 2, 3]).shape == (3, 3)


@pytest.mark.parametrize("width", [None, 3, 7])
def test_orthogonal_frame_is_orthonormal(width):
    frame = orthogonal_frame(3, width)
    assert torch.equal(frame @ frame.T, torch.eye(3, dtype=torch.float64))


def test_general_orthogonal_frame_has_the_given_lengths():
    frame = general_orthogonal_frame([3.0, 0.0, 0.5], width=5)
    gram = torch.diag(torch.tensor([9.0, 0.0, 0.25], dtype=torch.float64))
    assert torch.equal(frame @ frame.T, gram)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simplex_etf(1), "`num_classes` must be an integer >= 2; got 1"),
        (lambda: simplex_etf(5, 3), "`width` must be an integer >= 4; got 3"),
        (lambda: orthogonal_frame(0), ">= 1; got 0"),
        (lambda: orthogonal_frame(3, 2), "`width` must be an integer >= 3; got 2"),
        (lambda: general_orthogonal_frame([]), "number of norms.* >= 1; got 0"),
        (lambda: general_orthogonal_frame([1, -1]), r"finite and >= 0; got \[1\.0, -1"),
        (lambda: general_orthogonal_frame([math.nan]), "finite and >= 0; got"),
        (lambda: general_orthogonal_frame([math.inf]), "finite and >= 0; got"),
        (lambda: general_orthogonal_frame([1, 2], 1), "`width` must be .* got 1"),
    ],
)
def test_rejects_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
