from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import orthogonal_frame, simplex_etf
from layerpeel.measurement import nc2
from tests.measurement.collapsed import measured
from tests.measurement.reference import nc2 as slow_nc2


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_zero_on_a_simplex(classes):
    deviation = nc2(7 * simplex_etf(classes))
    assert deviation.mean_cosine == pytest.approx(-1 / (classes - 1))
    for name in ("equinorm", "equiangularity", "angle", "gram"):
        assert abs(getattr(deviation, name)) < 1e-12, name


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_zero_for_classifiers_and_means_under_collapse(shift):
    m = measured(shift=shift)
    for deviation in (m.nc2_classifiers(), m.nc2_means(), m.nc2_means("class")):
        assert max(deviation.equinorm, deviation.angle, deviation.gram) < 1e-10


def test_orthogonal_frame_in_closed_form():
    K = 4
    deviation = nc2(orthogonal_frame(K))
    assert deviation.angle == pytest.approx(1 / (K - 1))
    # Between I / sqrt(K) and the target: 2 - 2 <I, I - J/K> / sqrt(K (K - 1)).
    assert deviation.gram**2 == pytest.approx(2 - 2 * (K - 1) / np.sqrt(K * (K - 1)))
    assert deviation.equinorm == 0


@pytest.mark.parametrize("correction", [0, 1])
def test_agrees_with_reference(correction):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    actual = list(vars(nc2(rows, correction)).values())
    np.testing.assert_allclose(actual, slow_nc2(rows.numpy(), correction), rtol=1e-12)


def test_row_centring_is_what_softmax_sees():
    m = measured()
    tilted = replace(m, weight=m.weight + torch.arange(6.0).double())
    assert tilted.nc2_classifiers().gram < 1e-10
    assert tilted.nc2_classifiers(centred=False).gram > 0.1


def test_classes_without_samples_are_left_out():
    frame = simplex_etf(3, 5)
    gaps = torch.cat([frame, torch.full((1, 5), torch.nan).double()])
    assert nc2(gaps) == nc2(frame)


def test_vanished_vectors_have_norms_but_no_angles():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).double()
    with pytest.warns(UndefinedWarning, match="vanished"):
        deviation = nc2(rows)
    assert deviation.equinorm == pytest.approx(np.std([1, 1, 0]) / np.mean([1, 1, 0]))
    assert np.isnan(
        [deviation.angle, deviation.equiangularity, deviation.mean_cosine]
    ).all()
    assert np.isfinite(deviation.gram)


@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 2), torch.ones(1, 2), torch.zeros(0, 2)]
)
def test_undefined_without_two_vectors(rows):
    with pytest.warns(UndefinedWarning, match="two classes"):
        assert np.isnan(list(vars(nc2(rows.double())).values())).all()
