import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
)

from layerpeel.measurement.distributed.padding import (
    BatchedShard,
    OwnShard,
    StridedShard,
    UnknownShard,
    shard_of,
)
from tests.measurement.distributed.checks import Strange, numbered, prepared


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


class Every(DistributedSampler):
    """Overrides the order, so that nothing about it is known."""

    def __iter__(self):
        return iter(range(len(self.dataset)))


class Renamed(DistributedSampler):
    """Inherits the order."""


def distributed(kind=DistributedSampler, **options):
    return kind(numbered(10), num_replicas=4, rank=1, **options)


def loader(sampler=None, **options):
    return DataLoader(numbered(10), sampler=sampler, **options)


CASES = [
    (lambda: [1, 2], OwnShard()),
    (lambda: DataLoader(Stream()), OwnShard()),
    (lambda: loader(batch_size=3), OwnShard()),
    (lambda: loader(RandomSampler(range(10))), OwnShard()),
    (lambda: loader(distributed()), StridedShard(10, 1, 4)),
    (lambda: loader(distributed(Renamed)), StridedShard(10, 1, 4)),
    (lambda: loader(distributed(drop_last=True)), StridedShard(10, 1, 4, False)),
    (lambda: loader(distributed(Every)), UnknownShard("Every", 3, 10)),
    (lambda: loader(Strange([1, 2])), UnknownShard("Strange", 2, 10)),
    (
        lambda: loader(batch_sampler=BatchSampler(distributed(), 3, False)),
        StridedShard(10, 1, 4),
    ),
    (
        lambda: loader(BatchSampler(distributed(), 3, False), batch_size=None),
        StridedShard(10, 1, 4),
    ),
    (
        lambda: loader(distributed(), batch_size=None),
        UnknownShard("DistributedSampler", 3, 10),
    ),
    (lambda: loader(batch_sampler=[[0], [1]]), UnknownShard("list", 2, 10)),
    (lambda: prepared(10, 4, False, 1, 2), BatchedShard(10, 1, 2, 4)),
    (lambda: prepared(10, 4, True, 1, 2), BatchedShard(10, 1, 2, 4, split=True)),
]


def test_samplers_are_recognised():
    for make, expected in CASES:
        assert shard_of(make()) == expected


def test_workers_that_overtake_each_other_hide_the_last_batch():
    options = {"num_workers": 1, "in_order": False}
    assert isinstance(shard_of(loader(distributed(), **options)), UnknownShard)


def test_counts_of_repetitions_are_those_of_the_samplers():
    for count in range(1, 40):
        for ranks in (2, 3, 4):
            samplers = [
                DistributedSampler(range(count), num_replicas=ranks, rank=rank)
                for rank in range(ranks)
            ]
            drawn = sum(len(list(sampler)) for sampler in samplers)
            assert StridedShard(count, 0, ranks).repeated == drawn - count


def test_counts_of_repetitions_are_those_of_accelerate():
    for count in (1, 5, 8, 17, 24, 31):
        for split in (False, True):
            loaders = [prepared(count, 4, split, rank, 2) for rank in range(2)]
            drawn = sum(len(labels) for one in loaders for _, labels in one)
            assert shard_of(loaders[0]).repeated == drawn - count


def test_a_dataset_without_a_length_has_none():
    class Endless(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return torch.ones(2), index

    shard = shard_of(DataLoader(Endless(), sampler=Strange([0])))
    assert shard == UnknownShard("Strange", 1, None)
