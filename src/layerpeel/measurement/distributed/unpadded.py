"""A loader without the samples that its sampler repeats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor

from layerpeel._warnings import warn
from layerpeel.measurement.distributed.exchange import Group, exchange, is_distributed
from layerpeel.measurement.distributed.padding import (
    BatchedShard,
    StridedShard,
    UnknownShard,
    shard_of,
)
from layerpeel.measurement.sources.batches import unpack


@dataclass(frozen=True, eq=False)
class Unpadded:
    """The batches of a loader, with the rows left out that were seen before.

    Attributes:
        loader: The loader; its batches come in the order of its sampler.
        shard: What it takes of its data set.
    """

    loader: Iterable[Any]
    shard: StridedShard | BatchedShard

    def __len__(self) -> int:
        """The number of batches of the loader: at most one or two fewer are yielded."""
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Yield batches of the same structure, those with nothing new left out."""
        start = 0
        for index, raw in enumerate(self.loader):
            size = len(unpack(raw).labels)
            kept = self.shard.kept(index, start, size)
            start += size
            if kept == size:
                yield raw
            elif kept:
                yield first_rows(raw, kept, size)


def without_padding(loader: Iterable[Any], group: Group = None) -> Iterable[Any]:
    """Return a loader that yields every sample once, over all ranks together.

    Known are PyTorch's ``DistributedSampler``, the samplers that Lightning puts in its
    place, and the loaders that Accelerate prepares. Every process of the group has to
    call this at the same point; the first one warns of what is left out, or could not
    be checked. Outside of a ``torch.distributed`` job the loader is returned as it is.

    Args:
        loader: Any iterable of batches.
        group: The processes that share the data; all of them when omitted.

    Returns:
        Batches of the same structure; the loader itself where nothing has to go.

    Warns:
        UserWarning: If samples are left out, with their number; or if a sampler is not
            known, so that repeated samples cannot be excluded.
    """
    if not is_distributed():
        return loader
    shard = shard_of(loader)
    said = exchange(json.dumps([type(shard).__name__, asdict(shard)]), group)
    if dist.get_rank(group) == 0:
        _warn([json.loads(text) for text in said])
    if isinstance(shard, StridedShard | BatchedShard) and shard.repeated:
        return Unpadded(loader, shard)
    return loader


def first_rows(raw: Any, rows: int, size: int) -> Any:  # noqa: ANN401 - keeps its type
    """Return a batch cut to its first samples.

    Args:
        raw: What a loader yields: tensors, arrays and lists with one entry per sample,
            inside tuples, lists and mappings.
        rows: How many samples to keep.
        size: How many there are; what has another length is left as it is.

    Example:
        >>> first_rows({"ids": [3, 4, 5], "text": ["a", "b", "c"], "lr": 0.1}, 2, 3)
        {'ids': [3, 4], 'text': ['a', 'b'], 'lr': 0.1}
    """
    if isinstance(raw, Tensor | np.ndarray):
        return raw[:rows] if raw.ndim and len(raw) == size else raw
    if isinstance(raw, Mapping):
        return {key: first_rows(item, rows, size) for key, item in raw.items()}
    if not isinstance(raw, tuple | list):
        return raw
    nested = any(
        isinstance(item, Tensor | np.ndarray | Mapping | tuple | list) for item in raw
    )
    if not nested:
        return raw[:rows] if len(raw) == size else raw
    items = [first_rows(item, rows, size) for item in raw]
    if hasattr(raw, "_fields"):  # a named tuple takes its fields one by one
        return type(raw)(*items)
    return tuple(items) if isinstance(raw, tuple) else items


def _warn(said: list[tuple[str, dict[str, Any]]]) -> None:
    unknown = [UnknownShard(**c) for name, c in said if name == UnknownShard.__name__]
    known = [
        kind(**content)
        for kind in (StridedShard, BatchedShard)
        for name, content in said
        if name == kind.__name__
    ]
    if unknown and not _adds_up(unknown, len(said)):
        _doubt(f"the sampler `{unknown[0].sampler}` is not known here")
    if known and not _is_partition(known, len(said)):
        _doubt("the samplers of the ranks do not divide one data set among all ranks")
    elif known and known[0].repeated:
        warn(
            f"The samplers repeat {known[0].repeated} of {known[0].samples} samples, so "
            "that all ranks have equally many; the repetitions are left out.",
            UserWarning,
        )


def _doubt(reason: str) -> None:
    warn(
        f"Samples that several ranks measure cannot be excluded: {reason}. Give every "
        "rank a part of the data of its own, or a `DistributedSampler` of all ranks.",
        UserWarning,
    )


def _adds_up(unknown: list[UnknownShard], ranks: int) -> bool:
    """Whether all ranks together draw no more samples than there are."""
    samples = {shard.samples for shard in unknown}
    drawn = [shard.drawn for shard in unknown if shard.drawn is not None]
    if not len(unknown) == len(drawn) == ranks or len(samples) > 1:
        return False
    total = samples.pop()
    return total is not None and sum(drawn) <= total


def _is_partition(known: Sequence[StridedShard | BatchedShard], ranks: int) -> bool:
    """Whether each rank has its own shard of one data set, and none is left over."""
    divisions = {replace(shard, rank=0) for shard in known}
    own = sorted(shard.rank for shard in known)
    return len(divisions) == 1 and own == list(range(ranks)) == list(
        range(known[0].ranks)
    )
