"""Samples that a distributed sampler repeats, so that all ranks have equally many.

Training wants equally many batches on every rank, so that samplers fill the last ones
up with samples seen before. A measurement counts every sample once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

# Samplers that take each sample, or draw, from a data set of this rank's own.
_OWN_SHARD = (
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
_LIGHTNING = ("lightning", "lightning_fabric", "pytorch_lightning")


@dataclass(frozen=True)
class StridedShard:
    """Every ``ranks``-th sample of a list, the list filled up to a multiple of that.

    PyTorch's ``DistributedSampler`` and Lightning's wrapper of other samplers.

    Attributes:
        samples: How many different samples the list has.
        rank: Which of the shards this is.
        ranks: How many shards there are.
        fills_up: Whether the list is filled up.
    """

    samples: int
    rank: int
    ranks: int
    fills_up: bool = True

    @property
    def repeated(self) -> int:
        """How many samples all shards together have twice."""
        return -self.samples % self.ranks if self.fills_up else 0

    def kept(self, batch: int, start: int, size: int) -> int:
        """Return how many samples of a batch are new; they come first in it.

        Args:
            batch: The index of the batch in this shard.
            start: How many samples of this shard came before it.
            size: Its number of samples.
        """
        own = len(range(self.rank, self.samples, self.ranks))
        return min(max(own - start, 0), size)


@dataclass(frozen=True)
class BatchedShard:
    """Every ``ranks``-th batch of a sampler, or a part of each batch.

    The loaders that Accelerate prepares, and with them those of the Trainer of
    Transformers.

    Attributes:
        samples: How many different samples there are.
        rank: Which of the shards this is.
        ranks: How many shards there are.
        batch_size: The size of the batches of the sampler.
        split: Whether each batch is split among the ranks.
        fills_up: Whether batches are filled up from the beginning.
    """

    samples: int
    rank: int
    ranks: int
    batch_size: int
    split: bool = False
    fills_up: bool = True

    @property
    def repeated(self) -> int:
        """How many samples all shards together have twice."""
        round_ = self.batch_size * (1 if self.split else self.ranks)
        return -self.samples % round_ if self.fills_up else 0

    def kept(self, batch: int, start: int, size: int) -> int:
        """Return how many samples of a batch are new; they come first in it.

        Args:
            batch: The index of the batch in this shard.
            start: How many samples of this shard came before it; not needed here.
            size: Its number of samples.
        """
        if self.split:
            share = self.batch_size // self.ranks
            first = batch * self.batch_size + self.rank * share
        else:
            first = (batch * self.ranks + self.rank) * self.batch_size
        return min(max(self.samples - first, 0), size)


@dataclass(frozen=True)
class OwnShard:
    """Data that are this rank's own, as far as one can see."""


@dataclass(frozen=True)
class UnknownShard:
    """What a sampler that nobody here knows takes.

    Attributes:
        sampler: What it is called.
        drawn: How many samples it takes; ``None`` if it does not say.
        samples: How many the data set has; ``None`` if it does not say.
    """

    sampler: str
    drawn: int | None
    samples: int | None


Shard: TypeAlias = StridedShard | BatchedShard | OwnShard | UnknownShard


def shard_of(loader: object) -> Shard:
    """Return what a loader takes of its data set, from the sampler it was built with.

    Args:
        loader: A ``DataLoader``, or any other iterable, which has no sampler.
    """
    if not isinstance(loader, DataLoader) or isinstance(
        loader.dataset, IterableDataset
    ):
        return _of_stream(loader)
    if not getattr(loader, "in_order", True):
        # Workers overtake each other: which batch is the last is not known.
        return _unknown(loader, loader.sampler)
    batches: Any = loader.batch_sampler
    if batches is None and isinstance(loader.sampler, BatchSampler):
        batches = loader.sampler
    if _is_named(batches, _LIGHTNING, "_IndexBatchSamplerWrapper"):
        batches = batches._batch_sampler
    if _is_named(batches, ("accelerate",), "BatchSamplerShard"):
        return _of_accelerate(loader, batches)
    if type(batches) is not BatchSampler:
        return _unknown(loader, loader.sampler if batches is None else batches)
    return _of_sampler(loader, batches.sampler)


def _of_stream(loader: object) -> Shard:
    dataset = getattr(loader, "dataset", None)
    dispatched = _is_named(loader, ("accelerate",), "DataLoaderDispatcher")
    if dispatched or _is_named(dataset, ("accelerate",), "IterableDatasetShard"):
        return UnknownShard(
            type(loader if dispatched else dataset).__name__, None, None
        )
    return OwnShard()


def _of_sampler(loader: DataLoader[Any], sampler: Any) -> Shard:  # noqa: ANN401 - any
    if type(sampler) in _OWN_SHARD:
        return OwnShard()
    if not isinstance(sampler, DistributedSampler):
        return _unknown(loader, sampler)
    plain = type(sampler).__iter__ is DistributedSampler.__iter__
    if plain or _is_named(sampler, _LIGHTNING, "DistributedSamplerWrapper"):
        return _strided(sampler, fills_up=not sampler.drop_last)
    unrepeated = ("UnrepeatedDistributedSampler", "UnrepeatedDistributedSamplerWrapper")
    if any(_is_named(sampler, _LIGHTNING, name) for name in unrepeated):
        return _strided(sampler, fills_up=False)
    return _unknown(loader, sampler)


def _strided(sampler: Any, *, fills_up: bool) -> StridedShard:  # noqa: ANN401 - untyped
    return StridedShard(
        len(sampler.dataset), sampler.rank, sampler.num_replicas, fills_up
    )


def _of_accelerate(loader: DataLoader[Any], batches: Any) -> Shard:  # noqa: ANN401 - untyped
    inner = batches.batch_sampler
    known = type(inner) is BatchSampler and batches.batch_size is not None
    if not known or isinstance(inner.sampler, DistributedSampler):
        return _unknown(loader, inner)
    return BatchedShard(
        samples=len(inner.sampler),
        rank=batches.process_index,
        ranks=batches.num_processes,
        batch_size=batches.batch_size,
        split=batches.split_batches,
        fills_up=batches.even_batches and not batches.drop_last,
    )


def _unknown(loader: DataLoader[Any], sampler: object) -> UnknownShard:
    drawn = None if isinstance(sampler, BatchSampler) else _length(sampler)
    return UnknownShard(type(sampler).__name__, drawn, _length(loader.dataset))


def _length(sized: object) -> int | None:
    try:
        return len(sized)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # how samplers say that they have none
        return None


def _is_named(value: object, packages: tuple[str, ...], name: str) -> bool:
    """Whether a value is of a class of another library, without importing that."""
    kind = type(value)
    return kind.__name__ == name and kind.__module__.partition(".")[0] in packages
