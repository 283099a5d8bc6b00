import pytest
import torch

from layerpeel.measurement.statistics import sample
from layerpeel.measurement.statistics.sample import SampleCollector


@pytest.mark.parametrize("batch", [1, 7, 500], ids="batch={}".format)
def test_first_sixty_of_each_class_in_order(batch):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (400,), generator=g)
    y[y == 2] = torch.where(torch.rand(int((y == 2).sum()), generator=g) < 0.1, 2, 0)
    h = torch.arange(400.0)[:, None]
    collector = SampleCollector(4, 1)
    for a, b in zip(h.split(batch), y.split(batch), strict=True):
        collector.add(a, b)
    expected = [i for i, k in enumerate(y.tolist()) if (y[:i] == k).sum() < 60]
    kept = collector.value()
    assert kept.features[:, 0].tolist() == expected
    assert kept.labels.tolist() == y[expected].tolist()


def test_no_more_than_the_budget(monkeypatch):
    monkeypatch.setattr(sample, "_SAMPLE_BYTES", 4 * 3 * 10 * 2)
    collector = SampleCollector(3, 10)
    collector.add(torch.zeros(9, 10), torch.arange(9) % 3)
    assert collector.value().labels.bincount().tolist() == [2, 2, 2]


def test_precision_is_float32_and_nothing_is_a_value():
    collector = SampleCollector(2, 3)
    assert collector.value().features.shape == (0, 3)
    collector.add(torch.ones(1, 3, dtype=torch.float64), torch.tensor([1]))
    assert collector.value().features.dtype == torch.float32
