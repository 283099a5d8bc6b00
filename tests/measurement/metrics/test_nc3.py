import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import nc3
from tests.measurement.collapsed import measured


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
