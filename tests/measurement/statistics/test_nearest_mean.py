import numpy as np
import pytest
import torch

from layerpeel.measurement import ClassMoments, NearestMean, measure_features
from layerpeel.measurement.statistics.nearest_mean import Decisions
from tests.measurement.collapsed import measured


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize(("classes", "width"), [(4, 6), (4, 3), (2, 1)])
def test_one_under_collapse(classes, width, shift):
    m = measured(classes, width, shift=shift)
    assert m.nc4() == 1.0
    assert m.nearest_mean.mismatch == 0.0
    assert m.nearest_mean.class_agreement.tolist() == [1.0] * classes


def test_bias_decides():
    # Means at 1 and -1. Without its bias the head splits at 0, as the means do; its
    # bias moves the split to 1.5, where one sample of class 0 is left on its side.
    h, y = torch.tensor([[2.0], [0.4], [0.6], [-1.0]]), torch.tensor([0, 0, 0, 1])
    W, b = torch.tensor([[1.0], [-1.0]]), torch.tensor([-1.5, 1.5])
    assert measure_features(h, y, weight=W).nc4() == 1.0
    biased = measure_features(h, y, weight=W, bias=b)
    assert biased.nc4() == 0.5
    assert biased.nearest_mean.mismatch == 0.5
    assert biased.nearest_mean.class_agreement.tolist() == [pytest.approx(1 / 3), 1.0]


def test_agreement_is_with_the_network_and_not_with_the_label():
    # Wherever the head is wrong, so is the nearest mean: they agree.
    h, y = torch.tensor([[1.0], [-3.0], [-1.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    m = measure_features(h, y, weight=torch.tensor([[-1.0], [1.0]]))
    assert m.accuracy == 0.5
    assert m.nc4() == 1.0


def test_class_average_is_the_projected_average_of_class_covariances():
    g = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 30 + [1] * 4 + [2] * 9)
    h = torch.randn(43, 5, generator=g).double() * (1 + y[:, None]) + 3 * y[:, None]
    moments = ClassMoments.of(h, y, 3)
    nearest = NearestMean.of(
        [Decisions(h[:20], y[:20], y[:20]), Decisions(h[20:], y[20:], y[20:])], moments
    )
    average = np.mean([np.cov(h[y == k].numpy().T, ddof=0) for k in range(3)], axis=0)
    V = nearest.subspace.basis.numpy()
    projected = nearest.class_averaged_covariance.numpy()
    np.testing.assert_allclose(projected, V.T @ V @ average @ V.T @ V, rtol=1e-10)
    assert V.shape == (2, 5)


def test_split_does_not_matter():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 3
    h, wrong = torch.randn(40, 5, generator=g) + y[:, None], (y * 2) % 3
    moments = ClassMoments.of(h, y, 3)
    whole = NearestMean.of([Decisions(h, y, wrong)], moments)
    rows = zip(h.split(1), y.split(1), wrong.split(1), strict=True)
    single = NearestMean.of([Decisions(*row) for row in rows], moments)
    assert torch.equal(whole.agreed, single.agreed)
    torch.testing.assert_close(whole.class_averaged, single.class_averaged)
