import math

import numpy as np
import pytest
import torch

from layerpeel._checks import LabelError, ShapeError, UndefinedWarning
from layerpeel.measurement import Margins
from layerpeel.measurement.statistics.margins import MARGIN_BINS, logit_margins


def data(n=500, K=4, scale=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    z, y = (
        scale * torch.randn(n, K, generator=g),
        torch.randint(0, K, (n,), generator=g),
    )
    y[y == 2] = 1  # class 2 has no samples
    return z, y


def reference(z, y):
    z = z.double().numpy()
    return np.array(
        [row[k] - np.delete(row, k).max() for row, k in zip(z, y.tolist(), strict=True)]
    )


def test_margins_agree_with_a_loop_over_samples():
    z, y = data()
    np.testing.assert_allclose(logit_margins(z, y), reference(z, y), rtol=1e-14)


@pytest.mark.parametrize("sizes", [[500], [1] * 500, [0, 499, 1]], ids=len)
def test_moments_and_extremes_of_any_split_are_exact(sizes):
    z, y = data()
    total = Margins.empty(4)
    for a, b in zip(z.split(sizes), y.split(sizes), strict=True):
        total = total.merge(Margins.of(a, b))
    margins = reference(z, y)
    for k in (0, 1, 3):
        own = margins[y.numpy() == k]
        assert int(total.count[k]) == len(own)
        np.testing.assert_allclose(total.class_means[k], own.mean(), rtol=1e-11)
        np.testing.assert_allclose(total.class_variances[k], own.var(), rtol=1e-11)
        assert (total.low[k], total.high[k]) == (own.min(), own.max())
    assert int(total.histogram.sum()) == 500
    assert total.class_means[2].isnan()
    assert total.class_variances[2].isnan()


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3], ids="scale={}".format)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
def test_quantiles_are_as_good_as_promised(share, scale):
    z, y = data(scale=scale)
    margins = np.sort(reference(z, y))
    expected = margins[max(0, math.ceil(share * 500) - 1)]
    found = Margins.of(z, y).quantile(share)
    assert abs(found - expected) <= max(0.045 * abs(expected), 2.0**-12)
    if share in (0.0, 1.0):
        assert found == expected


def test_quantile_of_some_classes():
    margins = Margins.of(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert margins.quantile(0.5, [0]) == pytest.approx(9.0)
    assert margins.quantile(0.5, [1]) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [2.0**-12, 1.0, 2.0**16, 1e30])
def test_large_margins_have_a_bin_on_either_side(value):
    z = torch.tensor([[value, 0.0], [0.0, value]], dtype=torch.float64)
    right, wrong = Margins.of(z, torch.tensor([0, 0])).histogram[0].nonzero().flatten()
    assert right < MARGIN_BINS // 2 < wrong
    assert right + wrong == MARGIN_BINS - 1


@pytest.mark.parametrize("value", [0.0, 1e-30, 2.0**-13])
def test_tiny_margins_share_the_middle_bin(value):
    z = torch.tensor([[value, 0.0], [0.0, value]], dtype=torch.float64)
    counts = Margins.of(z, torch.tensor([0, 0])).histogram[0]
    assert int(counts[MARGIN_BINS // 2]) == 2


def test_wrong_use_is_refused():
    with pytest.raises(ShapeError, match="K >= 2"):
        Margins.of(torch.zeros(3, 1), torch.zeros(3).long())
    with pytest.raises(ShapeError, match=r"shape \(3,\)"):
        Margins.of(torch.zeros(3, 2), torch.zeros(2).long())
    with pytest.raises(LabelError, match=r"\[0, 2\)"):
        Margins.of(torch.zeros(1, 2), torch.tensor([2]))
    with pytest.raises(ValueError, match=r"`share` must lie in \[0, 1\]"):
        Margins.of(*data()).quantile(1.5)


@pytest.mark.parametrize("classes", [[7], [0, 4], [-1], [True]], ids=str)
def test_quantiles_are_of_known_classes(classes):
    with pytest.raises(ValueError, match=r"`classes` must be .*\[0, 4\); got "):
        Margins.of(*data()).quantile(0.5, classes)


def test_quantile_of_no_samples_is_undefined():
    with pytest.warns(UndefinedWarning, match="no samples"):
        assert math.isnan(Margins.of(*data()).quantile(0.5, [2]))
