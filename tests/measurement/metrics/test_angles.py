import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from layerpeel import PeeledProblem
from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.geometry import Geometry, general_orthogonal_frame, simplex_etf
from layerpeel.measurement.metrics.angles import (
    angles,
    frame_geometry,
    principal_angles,
)
from tests.measurement.metrics.vectors import on_circle, random_rows, turn, with_gaps

NUMBERS = (
    "classifier_mean",
    "classifier_max",
    "feature_mean",
    "feature_max",
    "duality_mean",
    "duality_max",
)


def numbers(difference):
    return [getattr(difference, name) for name in NUMBERS]


def predictions():
    frame = general_orthogonal_frame([1.0, 2.0, 3.0, 4.0])
    solved = PeeledProblem([40, 40, 4, 4], energy=(1.0, 5.0)).solve().geometry
    return {
        "simplex": frame_geometry("simplex", 4),
        "orthogonal": frame_geometry("orthogonal", 4),
        "general": Geometry.of(frame, frame),
        "solved": solved,
    }


def vectors_of(gram):
    values, basis = torch.linalg.eigh(gram)
    return basis * values.clamp(min=0).sqrt()


@pytest.mark.parametrize("name", ["simplex", "orthogonal", "general", "solved"])
def test_zero_against_itself_turned_and_scaled(name):
    predicted = predictions()[name]
    scaled = Geometry(
        4 * predicted.classifier_gram, 9 * predicted.feature_gram, 6 * predicted.logits
    )
    np.testing.assert_allclose(numbers(angles(scaled, predicted)), 0, atol=1e-6)
    w = vectors_of(predicted.classifier_gram) @ turn(4)
    turned = Geometry.of(w, w)
    assert angles(turned, predicted).classifier_max < 1e-6


@pytest.mark.parametrize("t", [1e-6, 0.1])
def test_one_turned_classifier_in_closed_form(t):
    w, m = on_circle(math.degrees(t), 120, 240), on_circle(0, 120, 240)
    difference = angles(Geometry.of(w, m), frame_geometry("simplex", 3))
    # Two of three pairs have an angle that is off by t; so has one of three dualities.
    assert difference.classifier_mean == pytest.approx(2 / 3 * t, rel=1e-6)
    assert difference.classifier_max == pytest.approx(t, rel=1e-6)
    assert difference.feature_max == pytest.approx(0, abs=1e-12)
    assert difference.duality_max == pytest.approx(t, rel=1e-4)
    off = abs(np.cos(np.radians(120) + np.array([t, -t])) + 0.5)
    expected = [off.mean(), off[1] / 2, off[0] / 2]
    np.testing.assert_allclose(difference.classifier_cosines, expected, atol=1e-12)


def slow(w, m, v, h):
    def angle(a, b):
        return math.acos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))

    def pairs(a, b):
        n = len(a)
        return [
            abs(angle(a[j], a[k]) - angle(b[j], b[k]))
            for j in range(n)
            for k in range(n)
            if j != k
        ]

    both = zip(zip(w, m, strict=True), zip(v, h, strict=True), strict=True)
    duality = [abs(angle(*p) - angle(*q)) for p, q in both]
    series = (pairs(w, v), pairs(m, h), duality)
    return [f(values) for values in series for f in (np.mean, max)]


def test_agrees_with_a_loop():
    rows = [random_rows(5, 7, seed) for seed in range(4)]
    difference = angles(Geometry.of(*rows[:2]), Geometry.of(*rows[2:]))
    expected = slow(*(r.numpy() for r in rows))
    np.testing.assert_allclose(numbers(difference), expected, rtol=1e-9)


def test_what_is_vanished_or_absent_is_left_out():
    w, m = random_rows(4, 5), random_rows(4, 5, seed=1)
    predicted = frame_geometry("simplex", 4)
    absent = angles(Geometry.of(w, with_gaps(m[:3], 3)), predicted)
    assert not np.isnan(numbers(absent)).any()
    assert absent.feature_cosines.isnan().tolist() == [False] * 3 + [True]
    w[1:] = 0
    with pytest.warns(UndefinedWarning, match="Angles of classifiers"):
        vanished = angles(Geometry.of(w, m), predicted)
    assert np.isnan(vanished.classifier_mean)
    assert np.isfinite([vanished.feature_mean, vanished.duality_mean]).all()


def test_numbers_of_classes_must_agree():
    with pytest.raises(ShapeError, match="same number of classes; got 3 and 4"):
        angles(frame_geometry("simplex", 3), frame_geometry("simplex", 4))


def test_frames_by_name():
    simplex = frame_geometry("simplex", 3)
    np.testing.assert_allclose(simplex.logits, simplex_etf(3) @ simplex_etf(3).T)
    with pytest.raises(ValueError, match=r"`frame` must be one of 'simplex'"):
        frame_geometry("etf", 3)


@pytest.mark.parametrize("t", [1e-9, 0.3])
def test_principal_angle_of_a_tilted_plane(t):
    plane = torch.eye(4).double()[:2]
    tilted = torch.stack([plane[0], np.cos(t) * plane[1] + np.sin(t) * torch.eye(4)[2]])
    found = principal_angles(3 * plane, turn(2) @ tilted.double())
    np.testing.assert_allclose(found, [t, 0], rtol=1e-5, atol=1e-15)


def test_principal_angles_agree_with_scipy_and_ignore_rounding():
    first, second = random_rows(4, 9), random_rows(3, 9, seed=1)
    expected = subspace_angles(first.T.numpy(), second.T.numpy())
    np.testing.assert_allclose(principal_angles(first, second), expected, rtol=1e-9)
    w = simplex_etf(5, 9)
    noisy = w + 1e-13 * random_rows(5, 9)
    assert float(principal_angles(w, noisy, most=(4, 4)).max()) < 1e-12
    gaps = principal_angles(with_gaps(first, 2), second)
    torch.testing.assert_close(gaps, principal_angles(first, second))


@pytest.mark.parametrize("rows", [torch.zeros(3, 4), torch.zeros(0, 4)])
def test_principal_angles_of_nothing_are_undefined(rows):
    with pytest.warns(UndefinedWarning, match="Principal angles"):
        assert principal_angles(rows.double(), random_rows(2, 4)).isnan().tolist() == [
            True
        ]
