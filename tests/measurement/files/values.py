"""Some of every statistic, built from the same few rows."""

import torch

from layerpeel.measurement.layers.observer import LayerObserver
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.units import UnitRange


def rows(count=40, classes=4, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    features = torch.randn(count, width, generator=generator) + labels[:, None]
    logits = torch.randn(count, classes, generator=generator)
    return features, labels, logits


def nearest_mean(*, light=False):
    features, labels, logits = rows()
    moments = RowStatistics.of(features, labels, logits, light=light).moments
    return NearestMean.of([Decisions(features, labels, logits.argmax(1))], moments)


def profile(count):
    """Two layers, one of them an activation; without data, none."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(5, 6))
        model[0].bias.zero_()
    observer = LayerObserver(model, num_classes=4)
    features, labels, _ = rows(count)
    if count:
        with observer, torch.no_grad():
            model(features)
        observer.fold(labels)
    return observer.value()


VALUES = {
    "moments": lambda: RowStatistics.of(*rows()).moments,
    "no moments": lambda: ClassMoments.empty(4, 6),
    "confusion": lambda: Confusion.of(rows()[1], rows()[1], num_classes=4),
    "infinite range": lambda: UnitRange.empty(6),
    "rows": lambda: RowStatistics.of(*rows()),
    "light rows": lambda: RowStatistics.of(*rows(), light=True),
    "no rows": lambda: RowStatistics.empty(4, 6),
    "nearest mean": nearest_mean,
    "light nearest mean": lambda: nearest_mean(light=True),
    "profile": lambda: profile(20),
    "empty profile": lambda: profile(0),
    "no nearest mean": lambda: NearestMean.empty(4),
}


def assert_same_bits(one, other):
    assert type(one) is type(other)
    mine, others = one.parts(), other.parts()
    assert mine.keys() == others.keys()
    for name, part in mine.items():
        if isinstance(part, torch.Tensor):
            assert part.dtype == others[name].dtype, name
            assert part.shape == others[name].shape, name
            bits = (
                p.contiguous().view(-1).view(torch.uint8) for p in (part, others[name])
            )
            assert torch.equal(*bits), name
        else:
            assert type(part) is type(others[name]), name
            assert repr(part) == repr(others[name]), name
