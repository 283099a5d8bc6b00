import itertools

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import ClassMoments, cdnv, nc1, nc1_quotient
from layerpeel.measurement.metrics.nc1 import within_variance
from tests.measurement.collapsed import measured
from tests.measurement.reference import rank_pinv


@pytest.mark.parametrize(("classes", "width"), [(4, 6), (4, 3), (2, 1), (5, 40)])
def test_zero_under_collapse(classes, width):
    m = measured(classes, width)
    for pooling in ("pooled", "class"):
        assert m.nc1(pooling=pooling) < 1e-25
        assert m.nc1_quotient(pooling=pooling) < 1e-25
    assert m.cdnv() < 1e-25


@pytest.mark.parametrize(("classes", "width"), [(4, 6), (9, 4), (3, 3), (30, 12)])
def test_agrees_with_a_pseudo_inverse_of_that_rank(classes, width):
    g = torch.Generator().manual_seed(0)
    A = torch.randn(width, width, generator=g).double()
    means = torch.randn(classes, width, generator=g).double()
    within, means = A @ A.T, means - means.mean(0)
    S_B = (means.T @ means / classes).numpy()
    inverse = rank_pinv(S_B, min(classes - 1, width))
    expected = np.trace(within.numpy() @ inverse) / classes
    assert nc1(within, means) == pytest.approx(expected, rel=1e-10)


def test_isotropic_noise_on_an_etf_in_closed_form():
    # S_B = (1/K) sum m m^T = (scale^2 / (K - 1)) I on K - 1 dimensions.
    K, scale, sigma = 5, 3.0, 0.2
    within = sigma**2 * torch.eye(8).double()
    means = scale * simplex_etf(K, 8)
    assert nc1(within, means) == pytest.approx((K - 1) ** 2 * sigma**2 / scale**2 / K)
    assert nc1_quotient(8 * sigma**2, means) == pytest.approx(8 * sigma**2 / scale**2)
    distance = 2 * scale**2 * K / (K - 1)
    variances = torch.full((K,), 8 * sigma**2).double()
    assert cdnv(means, variances) == pytest.approx(8 * sigma**2 / distance)


def test_rounding_noise_off_the_mean_space_does_not_matter():
    # A K-th singular value of 1e-13 is noise, though large against eps for this size.
    g = torch.Generator().manual_seed(0)
    means = simplex_etf(4, 7)
    noisy = means + 1e-13 * torch.randn(4, 7, generator=g).double()
    within = torch.eye(7).double()
    assert nc1(within, noisy) == pytest.approx(nc1(within, means), rel=1e-9)


def test_dead_units_change_nothing():
    g = torch.Generator().manual_seed(0)
    A, means = (
        torch.randn(5, 5, generator=g).double(),
        torch.randn(4, 5, generator=g).double(),
    )
    means -= means.mean(0)
    within = A @ A.T
    pad = torch.nn.functional.pad
    assert nc1(pad(within, (0, 3, 0, 3)), pad(means, (0, 3))) == pytest.approx(
        nc1(within, means), rel=1e-12
    )


def test_classes_without_samples_are_left_out():
    means = simplex_etf(3, 5)
    nan = torch.full((2, 5), torch.nan).double()
    within, variances = torch.eye(5).double(), torch.ones(3).double()
    gaps = torch.cat([nan[:1], means, nan[:1]])
    assert nc1(within, gaps) == nc1(within, means)
    assert nc1_quotient(5.0, gaps) == nc1_quotient(5.0, means)
    spread = torch.cat([nan[0, :1], variances, nan[0, :1]])
    assert cdnv(gaps, spread) == cdnv(means, variances)


def test_rotation_and_scale_invariance():
    g = torch.Generator().manual_seed(0)
    A, means = (
        torch.randn(6, 6, generator=g).double(),
        torch.randn(4, 6, generator=g).double(),
    )
    means -= means.mean(0)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=g).double())
    turned = nc1(9 * turn.T @ A @ A.T @ turn, 3 * means @ turn)
    assert turned == pytest.approx(nc1(A @ A.T, means), rel=1e-10)


@pytest.mark.parametrize(
    "means", [torch.zeros(3, 4), torch.zeros(1, 4), torch.zeros(0, 4)]
)
def test_undefined_when_means_do_not_differ(means):
    means = means.double()
    calls = [
        lambda: nc1(torch.eye(4).double(), means),
        lambda: nc1_quotient(1.0, means),
        lambda: cdnv(means, means[:, 0]),
    ]
    for call in calls:
        with pytest.warns(UndefinedWarning, match="undefined"):
            assert np.isnan(call())


def test_cdnv_is_undefined_for_a_single_coinciding_pair():
    means = torch.tensor([[1.0], [1.0], [4.0]]).double()
    with pytest.warns(UndefinedWarning, match="distinct means"):
        assert np.isnan(cdnv(means, torch.ones(3).double()))


def test_cdnv_far_from_the_origin():
    means = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]).double() + 1e9
    v = torch.tensor([1.0, 2.0, 3.0]).double()
    pairs = [
        (v[i] + v[j]) / (2 * (means[i] - means[j]).square().sum())
        for i, j in itertools.combinations(range(3), 2)
    ]
    assert cdnv(means, v) == pytest.approx(float(sum(pairs) / 3), rel=1e-12)


def test_without_a_covariance_the_ratio_says_so():
    with pytest.warns(UndefinedWarning, match="light mode keeps no"):
        assert np.isnan(nc1(None, simplex_etf(3)))


def test_one_direction_more_variable_in_closed_form():
    # On top of isotropic noise, an amount along one unit direction of the mean space.
    K, extra = 5, 0.01
    means = simplex_etf(K, 8)
    along = means[0] / means[0].norm()
    within = torch.eye(8).double() + extra * torch.outer(along, along)
    expected = ((K - 1) + extra) * (K - 1) / K
    assert nc1(within, means) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-170])
def test_what_has_no_squares_is_undefined(scale):
    means = scale * simplex_etf(3, 4)
    variance = float(torch.tensor(scale).double().square())  # infinite, or zero
    for call in (
        lambda: nc1(variance * torch.eye(4).double(), means),
        lambda: nc1_quotient(float(variance), means),
    ):
        with pytest.warns(UndefinedWarning, match="no float64 numbers"):
            assert np.isnan(call())
    with pytest.warns(UndefinedWarning, match="squares are float64 numbers"):
        assert np.isnan(cdnv(means, torch.full((3,), variance).double()))


def test_directions_of_noise_are_left_out():
    # Two of four means coincide up to noise, off the plane that the others span.
    means = torch.zeros(4, 5).double()
    means[0, 0] = means[1, 1] = 1
    means[3, 2] = 1e-9
    means -= means.mean(0)
    within = torch.eye(5).double()
    exact = means.clone()
    exact[:, 2] = 0
    assert nc1(within, means) > 1e15
    known = nc1(within, means, resolution=1e-9)
    assert known == pytest.approx(nc1(within, exact), rel=1e-9)


def test_within_variances_by_hand():
    h = torch.tensor([[1.0], [3.0], [1.0], [3.0], [5.0]])
    moments = ClassMoments.of(h, torch.tensor([0, 0, 0, 0, 2]), 3)
    assert within_variance(moments) == pytest.approx(4 / 5)
    assert within_variance(moments, "class") == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        within_variance(moments, "none")
