import numpy as np
import pytest
import torch

from layerpeel.measurement import ENERGY_CONVENTIONS, ClassMoments, energies
from tests.measurement.reference import Reference
from tests.measurement.test_metrics import blobs

CONVENTIONS = ("sample_mean", "class_mean", "means_only", "uncentred")


def test_conventions_are_these_and_described():
    assert tuple(ENERGY_CONVENTIONS) == CONVENTIONS
    assert all(len(text) > 20 for text in ENERGY_CONVENTIONS.values())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_agrees_with_sums_over_samples(convention):
    h, y, W, _ = blobs(classes=5, width=4, shift=100.0, absent=(2,))
    moments = ClassMoments.of(h, y, 5)
    expected = Reference(h, y, W, h.double() @ W.T).energy(convention)
    np.testing.assert_allclose(energies(moments, W, convention), expected, rtol=1e-10)


def test_default_is_the_measure_of_the_authors():
    h, y, W, _ = blobs(classes=3, width=4)
    moments = ClassMoments.of(h, y, 3)
    assert energies(moments, W) == energies(moments, W, "sample_mean")
    assert all(isinstance(e, float) for e in energies(moments, W))


def test_conventions_differ_by_what_they_say():
    # Two classes at 10 +- 1 and 14, with one sample in four of the second.
    h = torch.tensor([[9.0], [11.0], [10.0], [14.0]])
    moments = ClassMoments.of(h, torch.tensor([0, 0, 0, 1]), 2)
    W = torch.tensor([[3.0], [1.0]]).double()
    spread = 2 / 3
    expected = {
        "sample_mean": (1.0, (1 + spread + 9) / 2),
        "class_mean": (1.0, (4 + spread + 4) / 2),
        "means_only": (1.0, (1 + 9) / 2),
        "uncentred": (5.0, (100 + spread + 196) / 2),
    }
    for convention, energy in expected.items():
        assert energies(moments, W, convention) == pytest.approx(energy)


def test_unknown_convention_lists_the_known():
    with pytest.raises(ValueError, match=r"'sample_mean', .*Did you mean 'uncentred'"):
        energies(ClassMoments.empty(2, 1), torch.ones(2, 1).double(), "uncentered")
