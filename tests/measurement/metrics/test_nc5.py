import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import orthogonal_frame, simplex_etf
from layerpeel.measurement.metrics.nc5 import nc5
from tests.measurement.metrics.vectors import random_rows, with_gaps


def test_zero_off_the_class_means_and_one_along_a_single_one():
    frame = simplex_etf(4, 7)
    assert nc5(frame, torch.eye(7).double()[6]) == 0
    assert nc5(frame[:1], -3 * frame[0]) == pytest.approx(1)
    # Along one mean: 1 for it and 1/(K - 1) for each of the others.
    assert nc5(frame, frame[0]) == pytest.approx(2 / 4)


@pytest.mark.parametrize("e", [1e-8, 1e-3, 1.0])
def test_a_share_within_the_class_means_in_closed_form(e):
    outside = torch.tensor([e, 0, 0, 1], dtype=torch.float64)
    expected = e / np.sqrt(1 + e**2) / 3
    assert nc5(orthogonal_frame(3, 4), outside) == pytest.approx(expected, rel=1e-12)


def test_agrees_with_a_loop_and_leaves_absent_classes_out():
    means, outside = random_rows(6, 4), random_rows(1, 4, seed=1)[0]
    m, o = means.numpy(), outside.numpy()
    cosines = [abs(v @ o) / np.linalg.norm(v) / np.linalg.norm(o) for v in m]
    assert nc5(means, outside) == pytest.approx(np.mean(cosines), rel=1e-12)
    assert nc5(with_gaps(means, 0, 5), outside) == nc5(means, outside)


UNDEFINED = {
    "outside mean": (torch.eye(3), torch.zeros(3)),
    "class mean": (torch.diag(torch.tensor([1.0, 0.0, 1.0])), torch.ones(3)),
    "no class": (torch.full((2, 3), torch.nan), torch.ones(3)),
    "outside unknown": (torch.eye(3), torch.full((3,), torch.nan)),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_undefined_without_directions(name):
    means, outside = UNDEFINED[name]
    with pytest.warns(UndefinedWarning, match="NC5 is undefined"):
        assert np.isnan(nc5(means.double(), outside.double()))
