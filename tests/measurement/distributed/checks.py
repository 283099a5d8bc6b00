"""What every process of a job does in each check; the tests judge what comes of it.

A check takes the rank, the number of ranks and a folder, and returns something that
JSON can hold, or raises.
"""

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, Sampler, TensorDataset

from layerpeel._checks import HeadError, NonFiniteError
from layerpeel.measurement import Tracker, measure
from layerpeel.measurement.distributed import (
    all_merge,
    reducer,
    shared_errors,
    without_padding,
)
from layerpeel.measurement.files import save_statistic
from layerpeel.measurement.files.digest import digest
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.units import UnitRange

CLASSES, WIDTH = 5, 7


def data(count=203):
    """Rows far from the origin, sorted by class: each class is on few ranks."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(CLASSES, (count,), generator=generator).sort().values
    centres = 3 * torch.randn(CLASSES, WIDTH, generator=generator)
    noise = torch.randn(count, WIDTH, generator=generator)
    features = (centres[labels] + noise).double() + 1e4
    logits = torch.randn(count, CLASSES, generator=generator)
    return features, labels, logits


def shard(values, rank, size):
    """Uneven contiguous shards: a twentieth, and equal parts of the rest."""
    count = len(values[0])
    bounds = [0, *torch.linspace(count // 20, count, size).int().tolist()]
    return [value[bounds[rank] : bounds[rank + 1]] for value in values]


def merged_and_saved(value, rank, folder, name):
    merged = all_merge(value)
    save_statistic(merged, folder / f"{name}.{rank}.safetensors")
    return digest(merged)


# Merging


def uneven_shards(rank, size, folder):
    value = RowStatistics.of(*shard(data(), rank, size))
    return merged_and_saved(value, rank, folder, "uneven_shards")


def light_shards(rank, size, folder):
    value = RowStatistics.of(*shard(data(), rank, size), light=True)
    return merged_and_saved(value, rank, folder, "light_shards")


def empty_shards(rank, size, folder):
    """All data on the last rank; the others have an empty value."""
    if rank == size - 1:
        value = RowStatistics.of(*data())
    else:
        value = RowStatistics.empty(CLASSES, WIDTH)
    return merged_and_saved(value, rank, folder, "empty_shards")


def nothing_on_some_ranks(rank, size, folder):
    """Odd ranks have no data, and cannot even know how many features there are."""
    parts = shard(data(), rank // 2, size // 2) if size > 2 else data()
    value = None if rank % 2 else RowStatistics.of(*parts)
    return merged_and_saved(value, rank, folder, "nothing_on_some_ranks")


def nothing_at_all(rank, size, folder):
    all_merge(None)


def one_class_on_one_rank(rank, size, folder):
    features, labels, logits = data()
    own = labels == 4 if rank == 1 else (labels != 4) & (labels % size == rank % size)
    if rank == 0:
        own |= (labels != 4) & (labels % size == 1)
    value = RowStatistics.of(features[own], labels[own], logits[own])
    return merged_and_saved(value, rank, folder, "one_class_on_one_rank")


def two_passes(rank, size, folder):
    """NC4 against the means of all data, as on one machine."""
    features, labels, logits = shard(data(), rank, size)
    moments = all_merge(RowStatistics.of(features, labels, logits)).moments
    decisions = Decisions(features, labels, logits.argmax(1))
    value = NearestMean.of([decisions], moments)
    return merged_and_saved(value, rank, folder, "two_passes")


def in_rank_order(rank, size, folder):
    """What is kept of a sample shows in which order values were merged."""
    features = torch.full((100, WIDTH), float(rank))
    labels = torch.zeros(100, dtype=torch.int64)
    value = RowStatistics.of(features, labels, torch.zeros(100, CLASSES))
    return all_merge(value).sample.features[:, 0].tolist()


def subgroup(rank, size, folder):
    """The last ranks merge among themselves; the others take no part."""
    ranks = list(range(size // 2, size))
    group = dist.new_group(ranks)
    if rank not in ranks:
        return None
    value = Confusion.of(torch.tensor([0]), torch.tensor([0]), num_classes=2)
    return all_merge(value, group).counts.tolist()


def one_member(rank, size, folder):
    groups = [dist.new_group([k]) for k in range(size)]
    value = UnitRange.of(torch.tensor([[float(rank)]]))
    together = reducer(groups[rank])
    return [together.size, *together.merge(value).low.tolist()]


def other_widths(rank, size, folder):
    all_merge(ClassMoments.empty(CLASSES, WIDTH + (rank == size - 1)))


def other_kinds(rank, size, folder):
    all_merge(Confusion.empty(2) if rank == 0 else UnitRange.empty(2))


def no_statistic(rank, size, folder):
    all_merge(torch.ones(2) if rank == 1 else UnitRange.empty(2))


def still_in_step(rank, size, folder):
    """After errors, the next merge is as good as the first."""
    low = all_merge(UnitRange.of(torch.tensor([[float(rank)]]))).low
    return low.tolist()


# Errors


def one_raises(rank, size, folder):
    with shared_errors():
        if rank == 1:
            raise NonFiniteError("`features` has 3 NaN")
    return "not reached"


def two_raise(rank, size, folder):
    with shared_errors():
        if rank < 2:
            raise HeadError(f"no head on rank {rank}")


def interrupted(rank, size, folder):
    try:
        with shared_errors():
            if rank == 0:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        return "interrupted"


def none_raises(rank, size, folder):
    with shared_errors():
        answer = 6 * 7
    return answer


# Agreement


def alike(rank, size, folder):
    together = reducer()
    said = [
        together.common("head", "fc"),
        together.common("classes", None if rank else ["a", "b"]),
        together.common("nothing", None),
    ]
    return [together.rank, together.size, said, together.gathered({"rank": rank})]


def unlike(rank, size, folder):
    reducer().common("head", "fc" if rank else "classifier")


def copies(rank, size, folder):
    """The last rank measures what the first one does."""
    part = 0 if rank == size - 1 else rank
    value = RowStatistics.of(*shard(data(), part, size))
    reducer().warn_of_copies(value)


def no_copies(rank, size, folder):
    together = reducer()
    together.warn_of_copies(RowStatistics.of(*shard(data(), rank, size)))
    together.warn_of_copies(None)


# Padding


def loaded(loader):
    """Which samples a loader yields, in order; their index is their feature."""
    return [index for features, _ in loader for index in features[:, 0].long().tolist()]


def numbered(count):
    indices = torch.arange(count)
    return TensorDataset(indices[:, None].float(), indices % CLASSES)


def sampled(count, batch_size, **options):
    dataset = numbered(count)
    sampler = DistributedSampler(dataset, **options)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler)


PADDED = [
    (count, batch_size, shuffle)
    for count in (1, 2, 3, 4, 7, 8, 13)
    for batch_size in (1, 3, 50)
    for shuffle in (False, True)
]


def padding_samplers(rank, size, folder):
    return [
        loaded(without_padding(sampled(count, batch_size, shuffle=shuffle)))
        for count, batch_size, shuffle in PADDED
    ]


def one_padded(rank, size, folder):
    loader = without_padding(sampled(4 * size - 1, 3, shuffle=False))
    return [loaded(loader), loaded(loader), len(loader)]


def nothing_padded(rank, size, folder):
    loader = sampled(4 * size, 3)
    return without_padding(loader) is loader


def dropping_sampler(rank, size, folder):
    loader = sampled(4 * size + 1, 3, drop_last=True)
    return without_padding(loader) is loader


class Strange(Sampler):
    """Draws the given indices, and nobody knows why."""

    def __init__(self, indices):
        self.indices = indices

    def __iter__(self):
        return iter(self.indices)

    def __len__(self):
        return len(self.indices)


def strange(indices):
    return DataLoader(numbered(12), batch_size=4, sampler=Strange(indices))


def unknown_sampler(rank, size, folder):
    return loaded(without_padding(strange(range(12))))


def unknown_sampler_that_adds_up(rank, size, folder):
    return loaded(without_padding(strange(range(rank, 12, size))))


def samplers_of_one_rank(rank, size, folder):
    dataset = numbered(9)
    sampler = DistributedSampler(dataset, num_replicas=size, rank=0)
    return loaded(without_padding(DataLoader(dataset, sampler=sampler)))


def own_shards(rank, size, folder):
    dataset = torch.utils.data.Subset(numbered(9), range(rank, 9, size))
    loaders = [DataLoader(dataset), [next(iter(DataLoader(dataset)))]]
    return [without_padding(loader) is loader for loader in loaders]


def accelerate_loaders(rank, size, folder):
    return [
        loaded(without_padding(prepared(count, batch_size, split, rank, size)))
        for count, batch_size, split in ACCELERATED
    ]


ACCELERATED = [
    (count, batch_size, split)
    for count in (1, 5, 8, 17, 24, 31)
    for batch_size in (4, 8)
    for split in (False, True)
]


def prepared(count, batch_size, split, rank, size):
    from accelerate.data_loader import prepare_data_loader

    return prepare_data_loader(
        DataLoader(numbered(count), batch_size=batch_size),
        num_processes=size,
        process_index=rank,
        split_batches=split,
    )


def lightning_samplers(rank, size, folder):
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
    from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler

    dataset = numbered(9)
    wrapped = DistributedSamplerWrapper(Strange(range(8, -1, -1)), shuffle=False)
    unrepeated = UnrepeatedDistributedSampler(dataset, shuffle=False)
    loaders = [
        DataLoader(dataset, batch_size=2, sampler=sampler)
        for sampler in (wrapped, unrepeated)
    ]
    return [loaded(without_padding(loader)) for loader in loaders]


# A whole measurement


def network():
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES)
    ).double()
    with torch.no_grad():
        for values in model.parameters():
            values.copy_(torch.randn(values.shape, generator=generator))
    return model


def samples():
    features, labels, _ = data()
    return TensorDataset(features.double() - 1e3, labels)


def numbers(measurement):
    """What must agree with one process, and what must be the same bits on all."""
    profile = measurement.profile
    return {
        "counts": measurement.class_counts,
        "nc1": [measurement.nc1(pooling=pooling) for pooling in ("pooled", "class")],
        "nc4": measurement.nc4(),
        "loss": measurement.loss,
        "accuracy": measurement.accuracy,
        "eval_accuracy": measurement.eval_accuracy,
        "cdnv": [] if profile is None else profile.cdnv().tolist(),
        "against": measurement.nearest_mean.against,
        "digest": digest(measurement.statistics),
    }


def measured(rank, size, folder):
    """A padding sampler, held-out data and layers; each rank reads its share."""
    dataset = samples()
    sampler = DistributedSampler(dataset, shuffle=True)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)
    return numbers(
        measure(network(), loader, eval_loader=loader, layers="all", progress=False)
    )


def measured_without_cache(rank, size, folder):
    """The first rank's share fits into the cache, the others' do not."""
    loader = DataLoader(TensorDataset(*shard(samples().tensors, rank, size)), 16)
    own = 2**20 if rank == 0 else 0
    return numbers(measure(network(), loader, eval_loader=loader, cache_bytes=own))


def measured_on_one_rank(rank, size, folder):
    """All other ranks have no data at all."""
    loader = DataLoader(samples(), 16) if rank == 1 else []
    return numbers(measure(network(), loader, eval_loader=loader, layers="all"))


def measured_wrapped(rank, size, folder):
    wrapped = torch.nn.parallel.DistributedDataParallel(network())
    loader = DataLoader(samples(), 16) if rank == 1 else []
    return numbers(measure(wrapped, loader, eval_loader=loader))


def measured_alone(rank, size, folder):
    """One rank measures, the others do something else."""
    if rank:
        return None
    loader = DataLoader(samples(), 16)
    return numbers(measure(network(), loader, eval_loader=loader, distributed=False))


def tracked(rank, size, folder):
    """Every rank gives the tracker the same loader; each reads its share."""
    loader = DataLoader(samples(), 16, shuffle=True)
    tracker = Tracker(network(), loader, layers=["1"], loggers=folder / "log.csv")
    return [tracker.measure(step) for step in range(2)]


def measured_nothing(rank, size, folder):
    measure(network(), [])


def measured_nan(rank, size, folder):
    features, labels = shard(samples().tensors, rank, size)
    if rank == 1:
        features[0] = torch.nan
    measure(network(), [(features, labels)])


def measured_other_weights(rank, size, folder):
    model = network()
    with torch.no_grad():
        model[-1].weight.mul_(1 + rank)
    measure(model, [shard(samples().tensors, rank, size)])


NAMES = [
    "measured",
    "measured_without_cache",
    "measured_on_one_rank",
    "measured_wrapped",
    "measured_alone",
    "tracked",
    "measured_nothing",
    "measured_nan",
    "measured_other_weights",
    "uneven_shards",
    "light_shards",
    "empty_shards",
    "nothing_on_some_ranks",
    "nothing_at_all",
    "one_class_on_one_rank",
    "two_passes",
    "in_rank_order",
    "subgroup",
    "one_member",
    "other_widths",
    "other_kinds",
    "no_statistic",
    "still_in_step",
    "one_raises",
    "two_raise",
    "interrupted",
    "none_raises",
    "alike",
    "unlike",
    "copies",
    "no_copies",
    "padding_samplers",
    "one_padded",
    "nothing_padded",
    "dropping_sampler",
    "unknown_sampler",
    "unknown_sampler_that_adds_up",
    "samplers_of_one_rank",
    "own_shards",
    "accelerate_loaders",
    "lightning_samplers",
]


def after_a_death():
    all_merge(UnitRange.empty(2))
