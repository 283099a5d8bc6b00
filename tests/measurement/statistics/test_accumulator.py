import pytest
import torch

from layerpeel.measurement import ClassMoments
from layerpeel.measurement.statistics import moments
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from tests.measurement.statistics.test_moments import assert_close, data, reference


@pytest.mark.parametrize("fold", [1, 10, 10**6], ids="fold={}".format)
@pytest.mark.parametrize("batch", [1, 7, 60], ids="batch={}".format)
def test_any_batch_and_fold_agrees_with_reference(batch, fold, monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_ROWS", fold)
    monkeypatch.setattr(moments, "_CHUNK_ROWS_PER_CLASS", 0)
    h, y = data(shift=1e4)
    stream = MomentsAccumulator(4, 5)
    for a, b in zip(h.split(batch), y.split(batch), strict=True):
        stream.add(a, b)
    assert_close(stream.value(), reference(h, y, 4))


def test_value_can_be_read_in_between():
    h, y = data()
    stream = MomentsAccumulator(3, 5)
    stream.add(h[:20], y[:20])
    assert_close(stream.value(), reference(h[:20], y[:20], 3))
    stream.add(h[20:], y[20:])
    assert_close(stream.value(), reference(h, y, 3))


def test_nothing_added_is_empty():
    assert_close(MomentsAccumulator(3, 5).value(), ClassMoments.empty(3, 5))


def test_a_class_first_seen_late_keeps_its_mean():
    h, y = data(shift=1e4, n=30, classes=1)
    late = torch.full((2, 5), -1e4)
    stream = MomentsAccumulator(3, 5)
    stream.add(h, y)
    stream.value()
    stream.add(late, torch.tensor([2, 2]))
    expected = reference(torch.cat([h, late]), torch.cat([y, torch.tensor([2, 2])]), 3)
    assert_close(stream.value(), expected)
