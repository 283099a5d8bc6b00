import torch

from layerpeel.measurement.layers import gatherer
from layerpeel.measurement.layers.gatherer import Gatherer


def test_rows_come_in_order_and_once(monkeypatch):
    monkeypatch.setattr(gatherer, "_GATHERED_BYTES", 60)
    folded = []
    gathered = Gatherer(lambda a, b: folded.append((a.tolist(), b.tolist())))
    for start in range(0, 12, 2):
        rows = torch.arange(start, start + 2)
        gathered.add(rows, -rows)  # 32 bytes: every second addition folds
    gathered.add(torch.tensor([12]), torch.tensor([-12]))
    gathered.flush()
    gathered.flush()
    assert [a for a, _ in folded] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert all(b == [-value for value in a] for a, b in folded)


def test_rows_may_be_overwritten():
    folded = []
    gathered = Gatherer(lambda a: folded.append(a.tolist()))
    rows = torch.tensor([1.0, 2.0])
    gathered.add(rows)
    rows.zero_()
    gathered.flush()
    assert folded == [[1.0, 2.0]]


def test_large_batches_are_not_copied(monkeypatch):
    monkeypatch.setattr(gatherer, "_GATHERED_BYTES", 8)
    folded = []
    rows = torch.zeros(4)
    Gatherer(folded.append).add(rows)
    assert folded[0] is rows
