import numpy as np
import pytest
import torch

from layerpeel.measurement.statistics import moments
from layerpeel.measurement.statistics.nearest_mean import Decisions
from layerpeel.measurement.statistics.running_nearest_mean import RunningNearestMean


def data(n=90, K=4, d=3):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, K, (n,), generator=g)
    h = torch.randn(n, d, generator=g) + 2 * torch.randn(K, d, generator=g)[y] + 50
    return h, y, torch.randint(0, K, (n,), generator=g)


@pytest.mark.parametrize("fold", [10, 30, 90])
def test_each_fold_is_compared_with_the_means_so_far(fold, monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_ROWS", fold)
    monkeypatch.setattr(moments, "_CHUNK_ROWS_PER_CLASS", 0)
    h, y, p = data()
    running = RunningNearestMean(4, 3)
    for part in zip(h.split(5), y.split(5), p.split(5), strict=True):
        running.add(Decisions(*part))
    agreed = np.zeros(4)
    for start in range(0, 90, fold):
        seen = slice(0, start + fold)
        means = np.full((4, 3), np.inf)
        for k in set(y[seen].tolist()):
            means[k] = h[seen][y[seen] == k].double().mean(0)
        for i in range(start, start + fold):
            distances = np.square(h[i].double().numpy() - means).sum(1)
            agreed[y[i]] += distances.argmin() == p[i]
    found = running.value()
    assert found.agreed.tolist() == agreed.tolist()
    assert found.count.tolist() == y.bincount(minlength=4).tolist()
    assert found.against == "running means"
    assert found.class_averaged_covariance is None


def test_nothing_added_counts_nothing():
    assert RunningNearestMean(3, 2).value().count.tolist() == [0, 0, 0]
