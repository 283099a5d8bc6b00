import torch

from layerpeel.measurement.clones import ChunkClassifiers, chunk_errors
from layerpeel.measurement.distributed.reducer import LocalReducer
from layerpeel.measurement.tracking import Clones
from layerpeel.measurement.tracking.chunk_reader import ChunkReader

GRID = Clones([2, 4, 5], repeats=3).grid(5, seed=1)


def data():
    g = torch.Generator().manual_seed(0)
    h = torch.randn(40, 5, generator=g)
    return h, torch.arange(40) % 3, torch.randn(3, 5, generator=g).double()


def reader(limit):
    h, y, weight = data()
    found = ChunkReader(GRID, weight, None, limit)
    for rows, labels in zip(h.split(16), y.split(16), strict=True):
        found.add(rows, labels)
    return found


def by_hand(weight):
    h, y, _ = data()
    rows = [
        chunk_errors(h, y, ChunkClassifiers.of(weight, None, GRID.chunks[w]))
        for w in GRID.widths
    ]
    return torch.stack(rows)


def test_errors_of_batches_are_those_of_all_samples():
    found = reader(0)
    assert torch.equal(found.raw_errors(LocalReducer()), by_hand(data()[2]))
    assert found.samples == 40
    assert found.eps == torch.finfo(torch.float32).eps


def test_the_second_look_reads_other_classifiers():
    weight = data()[2]
    others = {
        w: ChunkClassifiers.of(-weight, None, GRID.chunks[w]) for w in GRID.widths
    }
    found = reader(40 * 5 * 4).folded_errors(others, LocalReducer())
    assert torch.equal(found, by_hand(-weight))
    assert not torch.equal(found, by_hand(weight))


def test_there_is_no_second_look_at_what_does_not_fit():
    assert reader(40 * 5 * 4 - 1).folded_errors({}, LocalReducer()) is None
