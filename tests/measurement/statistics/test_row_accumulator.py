import pytest
import torch

from layerpeel._checks import LabelError, ShapeError
from layerpeel.measurement import RowStatistics
from layerpeel.measurement.statistics import moments
from layerpeel.measurement.statistics.row_accumulator import RowAccumulator
from tests.measurement.test_contract import assert_same, rows


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
@pytest.mark.parametrize("batch", [1, 7, 90])
@pytest.mark.parametrize("fold", [10, 10**6])
def test_any_batch_and_fold_is_the_whole(batch, fold, light, monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_ROWS", fold)
    monkeypatch.setattr(moments, "_CHUNK_ROWS_PER_CLASS", 0)
    h, y, z = rows(0, 90, 4, 5)
    stream = RowAccumulator(4, 5, light=light)
    decisions = [
        stream.add(*part)
        for part in zip(h.split(batch), y.split(batch), z.split(batch), strict=True)
    ]
    assert torch.equal(torch.cat(decisions), z.argmax(1))
    assert_same(stream.value(), RowStatistics.of(h, y, z, light=light), atol=1e-9)


def test_a_value_does_not_go_on_counting():
    h, y, z = rows(0, 20, 4, 5)
    stream = RowAccumulator(4, 5)
    stream.add(h[:9], y[:9], z[:9])
    early = stream.value()
    stream.add(h[9:], y[9:], z[9:])
    assert_same(stream.value(), RowStatistics.of(h, y, z), atol=1e-9)
    assert_same(early, RowStatistics.of(h[:9], y[:9], z[:9]), atol=1e-9)


def test_nothing_added_is_empty():
    assert_same(RowAccumulator(3, 2).value(), RowStatistics.empty(3, 2))


def test_light_statistics_have_no_squares():
    parts = RowStatistics.of(*rows(0, 20, 40, 30), light=True).parts()
    shapes = {tuple(p.shape) for p in parts.values() if isinstance(p, torch.Tensor)}
    assert not shapes & {(30, 30), (40, 40)}
    assert RowStatistics.empty(40, 30, light=True).light


@pytest.mark.parametrize(
    ("labels", "logits", "error"),
    [
        (torch.tensor([0, 3]), torch.zeros(2, 3), LabelError),
        (torch.tensor([0.0, 1.0]), torch.zeros(2, 3), LabelError),
        (torch.tensor([0]), torch.zeros(2, 3), ShapeError),
    ],
)
def test_wrong_rows_are_refused(labels, logits, error):
    with pytest.raises(error):
        RowAccumulator(3, 4).add(torch.zeros(2, 4), labels, logits)
