from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.geometry import (
    general_orthogonal_frame,
    orthogonal_frame,
    simplex_etf,
)
from layerpeel.measurement import nc2
from layerpeel.measurement.metrics.nc2 import (
    general_orthogonal_distance,
    orthogonal_distance,
)
from tests.measurement.collapsed import measured
from tests.measurement.metrics.vectors import on_circle, random_rows, turn, with_gaps
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


def test_lengths_alone_in_closed_form():
    lengths = torch.tensor([1.0, 1.1, 0.9, 1.0]).double()
    deviation = nc2(lengths[:, None] * simplex_etf(4))
    assert deviation.equinorm == pytest.approx(np.std(lengths.numpy()), rel=1e-12)
    assert deviation.angle == pytest.approx(0, abs=1e-12)
    assert deviation.gram > 0.05


def test_small_turns_are_seen_to_first_order():
    # Of three vectors at 120 degrees, one turns by t: cosines move by -+ t sin 120.
    t = 1e-5
    deviation = nc2(on_circle(np.degrees(t), 120, 240))
    step = t * np.sqrt(3) / 2
    assert deviation.angle == pytest.approx(2 / 3 * step, rel=1e-4)
    assert deviation.equiangularity == pytest.approx(step * np.sqrt(2 / 3), rel=1e-4)


def test_many_classes_agree_with_whole_matrices():
    rows = random_rows(300, 5)
    np.testing.assert_allclose(
        list(vars(nc2(rows)).values()), slow_nc2(rows.numpy()), rtol=1e-11
    )


def slow_frame(rows, lengths):
    G, D = rows @ rows.T, np.diag(np.square(lengths))
    return np.linalg.norm(G / np.linalg.norm(G) - D / np.linalg.norm(D))


@pytest.mark.parametrize(("classes", "width"), [(4, 7), (9, 4), (300, 3), (1, 2)])
def test_orthogonal_distances_agree_with_whole_matrices(classes, width):
    rows = random_rows(classes, width)
    lengths = np.arange(1.0, classes + 1)
    own = rows.norm(dim=1).numpy()
    expected = [slow_frame(rows.numpy(), n) for n in (np.ones(classes), own, lengths)]
    actual = (
        orthogonal_distance(rows),
        general_orthogonal_distance(rows),
        general_orthogonal_distance(rows, list(lengths)),
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-15)


def test_orthogonal_distances_are_zero_on_their_frames():
    lengths = [1.0, 2.0, 5.0, 0.0]
    frame = general_orthogonal_frame(lengths, width=6) @ turn(6)
    assert general_orthogonal_distance(frame) < 1e-14
    assert general_orthogonal_distance(frame, [3 * n for n in lengths]) < 1e-14
    assert orthogonal_distance(7 * orthogonal_frame(4, 6) @ turn(6)) < 1e-14
    squares = np.square(lengths)
    closed = 2 - 2 * squares.sum() / (2 * np.linalg.norm(squares))
    assert orthogonal_distance(frame) ** 2 == pytest.approx(closed)


def test_one_tilted_pair_in_first_order():
    # An entry e twice off the diagonal of I: sqrt(2) e / sqrt(K), lengths unchanged.
    e, frame = 1e-6, orthogonal_frame(3)
    frame[0, 1] = e
    for distance in (orthogonal_distance(frame), general_orthogonal_distance(frame)):
        assert distance == pytest.approx(np.sqrt(2 / 3) * e, rel=1e-5)


def test_own_lengths_are_the_nearest():
    rows = random_rows(6, 9)
    nearest = general_orthogonal_distance(rows)
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        norms = torch.rand(6, generator=g).tolist()
        assert general_orthogonal_distance(rows, norms) > nearest


def test_orthogonal_distances_leave_absent_classes_out():
    rows = random_rows(4, 5)
    gaps = with_gaps(rows, 1)
    assert orthogonal_distance(gaps) == orthogonal_distance(rows)
    given = general_orthogonal_distance(gaps, [1.0, 9.0, 2.0, 3.0, 4.0])
    assert given == general_orthogonal_distance(rows, [1.0, 2.0, 3.0, 4.0])


def test_orthogonal_distances_of_nothing_are_undefined():
    calls = [
        lambda: orthogonal_distance(torch.zeros(3, 2).double()),
        lambda: orthogonal_distance(torch.zeros(0, 2).double()),
        lambda: general_orthogonal_distance(torch.zeros(3, 2).double()),
        lambda: general_orthogonal_distance(orthogonal_frame(2), [0.0, 0.0]),
    ]
    for call in calls:
        with pytest.warns(UndefinedWarning, match="orthogonal frame is undefined"):
            assert np.isnan(call())


def test_a_norm_for_every_vector():
    with pytest.raises(ShapeError, match="one length for each of 2 vectors"):
        general_orthogonal_distance(orthogonal_frame(2), [1.0])


@pytest.mark.parametrize("scale", [1e200, 1e-170])
def test_no_scale_is_too_large_or_small(scale):
    rows, norms = random_rows(5, 3), [1.0, 2.0, 3.0, 4.0, 0.0]
    many = [n * scale for n in norms]
    np.testing.assert_allclose(
        list(vars(nc2(scale * rows)).values()), list(vars(nc2(rows)).values())
    )
    assert orthogonal_distance(scale * rows) == pytest.approx(orthogonal_distance(rows))
    for given, expected in ((None, None), (many, norms)):
        assert general_orthogonal_distance(scale * rows, given) == pytest.approx(
            general_orthogonal_distance(rows, expected)
        )


@pytest.mark.parametrize("norms", [[1.0, np.nan], [1.0, np.inf], [1.0, -3.0]])
def test_norms_are_lengths(norms):
    with pytest.raises(ValueError, match="`norms` must be finite lengths >= 0; got"):
        general_orthogonal_distance(orthogonal_frame(2), norms)


@pytest.mark.parametrize("correction", [-1, 0.5, True, "1"])
def test_a_correction_is_a_number_of_values(correction):
    with pytest.raises((ValueError, TypeError)):
        nc2(simplex_etf(3), correction)


def test_too_few_values_for_a_correction():
    with pytest.warns(UndefinedWarning, match="there are 3") as caught:
        deviation = nc2(simplex_etf(3), 3)
    assert len(caught) == 1
    assert np.isnan(deviation.equinorm)
    assert deviation.equiangularity == pytest.approx(0, abs=1e-7)
    with (
        pytest.warns(UndefinedWarning, match="norms.*there are 3"),
        pytest.warns(UndefinedWarning, match="cosines.*there are 6"),
    ):
        deviation = nc2(simplex_etf(3), 99)
    assert np.isnan([deviation.equinorm, deviation.equiangularity]).all()
    assert deviation.mean_cosine == pytest.approx(-0.5)
