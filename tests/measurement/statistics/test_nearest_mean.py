from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpeel.measurement import ClassMoments, NearestMean, measure_features
from layerpeel.measurement.statistics import subspace
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
    V = nearest.basis.numpy()
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


def halves(light=False):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    h, p = torch.randn(60, 5, generator=g) + y[:, None], (y * 2) % 3
    return [Decisions(h[:20], y[:20], p[:20]), Decisions(h[20:], y[20:], p[20:])], [
        ClassMoments.of(*pair, 3, light=light)
        for pair in ((h, y), (h[:20], y[:20]), (h[20:], y[20:]))
    ]


def test_parts_against_the_same_means_merge_exactly():
    parts, (moments, *_) = halves()
    whole = NearestMean.of(parts, moments)
    merged = NearestMean.of(parts[:1], moments).merge(
        NearestMean.of(parts[1:], moments)
    )
    assert merged.against == "all data"
    assert torch.equal(merged.agreed, whole.agreed)
    torch.testing.assert_close(merged.class_averaged, whole.class_averaged)


def test_parts_against_means_of_their_own_say_so():
    parts, (_, first, second) = halves()
    a, b = NearestMean.of(parts[:1], first), NearestMean.of(parts[1:], second)
    merged = a.merge(b)
    assert merged.against == "each part"
    assert merged.class_averaged_covariance is None
    assert torch.equal(merged.agreed, a.agreed + b.agreed)
    running = b.without_means("running means")
    assert a.merge(running).against == "running means"
    assert a.merge(NearestMean.empty(3)).against == "all data"


def test_other_axes_of_the_same_space_merge_exactly():
    parts, (moments, *_) = halves()
    a, b = (NearestMean.of([part], moments) for part in parts)
    flipped = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    turned = replace(
        b,
        basis=flipped @ b.basis,
        class_averaged=flipped @ b.class_averaged @ flipped.T,
    )
    torch.testing.assert_close(
        a.merge(turned).class_averaged_covariance, a.merge(b).class_averaged_covariance
    )


def test_light_agreement_is_the_same():
    parts, (full, *_) = halves()
    _, (light, *_) = halves(light=True)
    a, b = NearestMean.of(parts, full), NearestMean.of(parts, light)
    assert torch.equal(a.agreed, b.agreed)
    assert b.class_averaged_covariance is None


def test_blocks_of_samples_do_not_matter(monkeypatch):
    parts, (moments, *_) = halves()
    whole = NearestMean.of(parts, moments)
    monkeypatch.setattr(subspace, "_SCORES", 1)
    assert torch.equal(NearestMean.of(parts, moments).agreed, whole.agreed)
