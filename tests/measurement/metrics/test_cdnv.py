import itertools

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import cdnv
from tests.measurement.metrics.vectors import random_rows, with_gaps


def slow(means, variances):
    means, variances = means.numpy().astype(np.longdouble), variances.numpy()
    return np.mean(
        [
            (variances[j] + variances[k]) / (2 * ((means[j] - means[k]) ** 2).sum())
            for j, k in itertools.combinations(range(len(means)), 2)
        ]
    )


def test_closed_form_on_a_simplex_and_with_one_mean_longer():
    K, v, longer = 5, torch.arange(1, 6).double(), 1.01
    frame = simplex_etf(K, 8)
    assert cdnv(frame, v) == pytest.approx(float(v.mean()) * (K - 1) / (2 * K))
    moved = frame.clone()
    moved[0] *= longer
    to_first = longer**2 + 1 + 2 * longer / (K - 1)
    others = 2 * K / (K - 1)
    expected = [
        (v[j] + v[k]) / (2 * (others if j else to_first))
        for j, k in itertools.combinations(range(K), 2)
    ]
    assert cdnv(moved, v) == pytest.approx(float(sum(expected) / 10), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e4, 1e9])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_agrees_with_differences(shift, scale):
    means = random_rows(30, 12) * scale + shift * scale
    variances = random_rows(30, 1)[:, 0].square()
    assert cdnv(means, variances) == pytest.approx(slow(means, variances), rel=1e-11)


def test_more_classes_than_a_block_and_than_features():
    means, variances = random_rows(600, 3), torch.ones(600).double()
    distances = torch.pdist(means).square()
    assert cdnv(means, variances) == pytest.approx(float((1 / distances).mean()))


def test_classes_without_samples_are_left_out():
    means, variances = random_rows(4, 3), torch.ones(4).double()
    spread = with_gaps(variances[:, None], 0, 2)[:, 0]
    assert cdnv(with_gaps(means, 0, 2), spread) == cdnv(means, variances)


def test_a_coinciding_pair_in_any_block_is_undefined():
    means = random_rows(600, 3)
    means[599] = means[598]
    with pytest.warns(UndefinedWarning, match="distinct means"):
        assert np.isnan(cdnv(means, torch.zeros(600).double()))


def test_means_up_to_the_resolution_coincide():
    means = torch.tensor([[0.0], [1e-9], [4.0]]).double()
    ones = torch.ones(3).double()
    assert cdnv(means, ones) > 1e17
    assert np.isfinite(cdnv(means, ones, resolution=1e-10))
    with pytest.warns(UndefinedWarning, match="distinct means"):
        assert np.isnan(cdnv(means, ones, resolution=1e-9))
