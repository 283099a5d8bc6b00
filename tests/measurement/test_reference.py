import numpy as np
import pytest
import torch

from layerpeel.measurement import measure_features
from tests.measurement.reference import Reference, assert_agrees, nc2, rank_pinv
from tests.measurement.test_metrics import blobs


def test_comparison_can_fail():
    h, y, W, b = blobs(classes=3, width=4)
    m = measure_features(h, y, weight=W, bias=b)
    z = h.double() @ W.T + b
    assert_agrees(m, Reference(h, y, W, z))
    moved = h.clone()
    moved[0, 0] += 1e-6
    for wrong in (
        Reference(moved, y, W, z),
        Reference(h, y, W * (1 + 1e-6), z),
        Reference(h, (y + 1) % 3, W, z),
        Reference(h, y, W, z.flip(1)),
    ):
        with pytest.raises(AssertionError):
            assert_agrees(m, wrong)


def test_comparison_refuses_nan_for_a_number():
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(np.nan, 1.0, equal_nan=True)


def test_pieces_on_numbers_done_by_hand():
    # Eigenvalues 4 and 1: the rank decides whether the second counts.
    S = np.diag([4.0, 1.0, 0.0])
    assert np.trace(rank_pinv(S, 2)) == pytest.approx(1.25)
    assert np.trace(rank_pinv(S, 1)) == pytest.approx(0.25)
    # Three unit vectors at 120 degrees are a simplex ETF.
    turn = 2 * np.pi / 3
    etf = np.array([[np.cos(k * turn), np.sin(k * turn)] for k in range(3)])
    np.testing.assert_allclose(nc2(etf), [0, -0.5, 0, 0, 0], atol=1e-12)


def test_reference_on_two_classes_by_hand():
    h, y = np.array([[1.0], [3.0], [-1.0], [-3.0]]), np.array([0, 0, 1, 1])
    r = Reference(h, y, np.array([[1.0], [-1.0]]), h @ np.array([[1.0, -1.0]]))
    assert r.nc1("sample", "pooled") == pytest.approx(1 / 4 / 2)
    assert r.nc1_quotient("class", "class") == pytest.approx(1 / 4)
    assert r.cdnv() == pytest.approx(2 / (2 * 16))
    assert r.energy("sample_mean") == pytest.approx((1.0, 5.0))
    assert r.energy("means_only") == pytest.approx((1.0, 4.0))
    assert r.nc4() == 1.0
    assert torch.isclose(torch.tensor(r.nc3("sample")), torch.tensor(0.0).double())
