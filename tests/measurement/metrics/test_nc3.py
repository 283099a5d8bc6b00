import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import orthogonal_frame, simplex_etf
from layerpeel.measurement import nc3
from layerpeel.measurement.metrics.nc3 import (
    NORMALISATIONS,
    duality_cosines,
    nc3_product,
)
from tests.measurement.collapsed import measured
from tests.measurement.metrics.vectors import random_rows, with_gaps


def test_zero_for_dual_matrices_of_any_scale():
    frame = simplex_etf(4, 6)
    assert nc3(5 * frame, 0.1 * frame) < 1e-12
    assert measured(shift=1e4).nc3() < 1e-10


def test_two_for_opposite_and_root_two_for_orthogonal_matrices():
    frame = simplex_etf(3, 3)
    assert nc3(frame, -frame) == pytest.approx(2)
    padded = torch.nn.functional.pad
    assert nc3(padded(frame, (0, 3)), padded(frame, (3, 0))) == pytest.approx(
        np.sqrt(2)
    )


def test_classes_without_samples_are_left_out_of_both():
    frame = simplex_etf(4, 4)
    means = frame.clone()
    means[2] = torch.nan
    assert nc3(frame, means) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("which", [0, 1])
def test_undefined_for_zero_matrices(which):
    pair = [simplex_etf(3), simplex_etf(3)]
    pair[which] = torch.zeros(3, 3).double()
    with pytest.warns(UndefinedWarning, match="NC3"):
        assert np.isnan(nc3(*pair))


def slow_rows(w, m):
    pairs = zip(w.numpy(), m.numpy(), strict=True)
    return np.mean(
        [
            np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))
            for a, b in pairs
        ]
    )


def test_rows_ignore_lengths_and_matrices_do_not():
    frame, lengths = simplex_etf(4, 6), torch.arange(1, 5).double()[:, None]
    assert nc3(lengths * frame, frame, "rows") < 1e-14
    # <W, M> / (|W| |M|) = mean length / root mean square length.
    cosine = 2.5 / np.sqrt(7.5)
    assert nc3(lengths * frame, frame) == pytest.approx(np.sqrt(2 - 2 * cosine))


@pytest.mark.parametrize("t", [1e-7, 0.1, 1.0])
def test_a_turn_of_every_classifier_in_closed_form(t):
    frame = orthogonal_frame(3, 6)
    away = torch.roll(frame, 3, dims=1)
    turned = 4 * (np.cos(t) * frame + np.sin(t) * away)
    assert nc3(turned, frame) == pytest.approx(2 * np.sin(t / 2), rel=1e-8)
    assert nc3(turned, frame, "rows") == pytest.approx(2 * np.sin(t / 2), rel=1e-8)
    cosines = duality_cosines(turned, frame)
    np.testing.assert_allclose(cosines, np.cos(t), rtol=1e-12)


def test_rows_and_cosines_agree_with_a_loop():
    w, m = random_rows(7, 5), random_rows(7, 5, seed=1)
    assert nc3(w, m, "rows") == pytest.approx(slow_rows(w, m), rel=1e-12)
    expected = torch.nn.functional.cosine_similarity(w, m)
    np.testing.assert_allclose(duality_cosines(w, m), expected, rtol=1e-12)


def test_absent_classes_are_left_out_and_vanished_ones_are_not():
    w, m = random_rows(4, 5), random_rows(4, 5, seed=1)
    more = torch.cat([w, w[:1]])
    assert nc3(more, with_gaps(m, 4), "rows") == nc3(w, m, "rows")
    assert duality_cosines(more, with_gaps(m, 4)).isnan().tolist() == [False] * 4 + [
        True
    ]
    m[2] = 0
    assert duality_cosines(w, m).isnan().tolist() == [False, False, True, False]
    with pytest.warns(UndefinedWarning, match="vanished"):
        assert np.isnan(nc3(w, m, "rows"))


@pytest.mark.parametrize("frame", ["simplex", "orthogonal"])
def test_products_against_whole_matrices(frame):
    w, m = random_rows(6, 4), random_rows(6, 4, seed=1)
    P, T = (w @ m.T).numpy(), np.eye(6) - (1 / 6 if frame == "simplex" else 0)
    expected = np.linalg.norm(P / np.linalg.norm(P) - T / np.linalg.norm(T))
    assert nc3_product(w, m, frame) == pytest.approx(expected, rel=1e-12)
    assert nc3_product(torch.cat([w, w[:1]]), with_gaps(m, 6), frame) == pytest.approx(
        expected, rel=1e-12
    )


def test_products_vanish_on_their_frames_alone():
    simplex, orthogonal = simplex_etf(4, 6), orthogonal_frame(4, 6)
    assert nc3_product(2 * simplex, 3 * simplex) < 1e-14
    assert nc3_product(2 * orthogonal, 3 * orthogonal, "orthogonal") < 1e-14
    # 2 - 2 <I, I - J/K> / sqrt(K (K - 1)) with K = 4.
    closed = np.sqrt(2 - 2 * 3 / np.sqrt(12))
    assert nc3_product(orthogonal, orthogonal) == pytest.approx(closed)
    assert nc3_product(simplex, simplex, "orthogonal") == pytest.approx(closed)
    tilted = orthogonal.clone()
    tilted[0, 1] += 1e-6  # one entry of the product of K = 4: first order e / sqrt(K)
    assert nc3_product(tilted, orthogonal, "orthogonal") == pytest.approx(
        5e-7, rel=1e-5
    )


@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 2), torch.ones(1, 2), torch.ones(0, 2)]
)
def test_products_without_logits_or_pairs_are_undefined(rows):
    with pytest.warns(UndefinedWarning, match="product form"):
        assert np.isnan(nc3_product(rows.double(), rows.double()))


def test_choices_are_listed():
    frame = simplex_etf(3)
    with pytest.raises(ValueError, match=r"`normalisation` must be one of 'matrix'"):
        nc3(frame, frame, "row")
    with pytest.raises(ValueError, match=r"`frame` must be one of 'simplex'"):
        nc3_product(frame, frame, "etf")


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("scale", [1e200, 1e-170])
def test_no_scale_is_too_large_or_small(scale, normalisation):
    w, m = random_rows(5, 3), random_rows(5, 3, seed=1)
    expected = nc3(w, m, normalisation)
    assert nc3(w, scale * m, normalisation) == pytest.approx(expected, rel=1e-12)
    assert nc3(scale * w, m, normalisation) == pytest.approx(expected, rel=1e-12)
    assert nc3_product(w, scale * m) == pytest.approx(nc3_product(w, m), rel=1e-12)
