"""The same samples every time: a fixed subset of the data, drawn once from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from layerpeel._checks import BatchError, at_least
from layerpeel.measurement.distributed.reducer import reducer
from layerpeel.measurement.sources.batches import unpack

_LABEL_ATTRIBUTES = ("targets", "labels")
_BATCH_SIZE = 256


def drawn(
    num_samples: int, size: int, seed: int, labels: Int64[Tensor, " n"] | None = None
) -> Int64[Tensor, " m"]:
    """Draw samples without replacement, each class in proportion where labels are known.

    Every class has at least two samples where it has them and there is room, so that
    its spread is known; at least one if there is not.

    Args:
        num_samples: The number of samples :math:`n` to draw from.
        size: How many to draw; all are taken if there are no more.
        seed: Seed of the draw; the global generator is left alone.
        labels: Class indices, if known, with shape :math:`(n,)`.

    Returns:
        Increasing indices.

    Raises:
        ValueError: If there are fewer places than classes.

    Example:
        >>> labels = torch.tensor([0] * 96 + [1] * 4)
        >>> labels[drawn(100, 10, seed=0, labels=labels)].tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    """
    at_least("subset", size, 1)
    if size >= num_samples:
        return torch.arange(num_samples)
    generator = torch.Generator().manual_seed(seed)
    if labels is None:
        return torch.randperm(num_samples, generator=generator)[:size].sort().values
    shares = _shares(labels.bincount(), size)
    chosen = []
    for k, share in enumerate(shares.tolist()):
        members = (labels == k).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[:share]])
    return torch.cat(chosen).sort().values


def _shares(counts: Int64[Tensor, " K"], size: int) -> Int64[Tensor, " K"]:
    """Split places in proportion to the counts, after the least that each class needs."""
    present = int((counts > 0).sum())
    if size < present:
        raise ValueError(
            f"`subset` must be at least the number of classes, {present}; got {size}."
        )
    shares = counts.clamp(max=2 if size >= 2 * present else 1)
    rest = (counts - shares).double()
    exact = rest / rest.sum().clamp(min=1) * (size - int(shares.sum()))
    shares = shares + exact.long()
    # The largest remainders take the places that rounding down has left.
    left = size - int(shares.sum())
    order = (exact - exact.floor()).argsort(descending=True, stable=True)
    shares[order[:left]] += 1
    return shares


class FixedData:
    """Data that are the same at every measurement.

    Of a ``DataLoader`` over a data set with a length, a loader of its own is made, which
    reads the samples in order: measuring then leaves the training loader's workers and
    random order alone. In a distributed job each process reads its share of them. Any
    other iterable is iterated as it is; of these, a subset is taken once and kept in
    memory.

    Args:
        loader: Batches as :func:`layerpeel.measurement.measure` takes them.
        size: How many samples to draw; all are used when omitted.
        seed: Seed of the draw.

    Attributes:
        indices: Indices of the samples in the data set, or in the order of the loader;
            ``None`` when all are used.

    Raises:
        BatchError: If the loader can be iterated once only, or gave other samples when
            it was read again.
        ValueError: If ``size`` is below one, or below the number of classes.
    """

    def __init__(self, loader: Iterable[Any], size: int | None, seed: int) -> None:
        # Not by calling `iter`: a DataLoader would draw a seed and start its workers.
        if isinstance(loader, Iterator):
            raise BatchError(
                "`loader` must be iterable again at every measurement; it is an iterator. "
                "Pass a list or a DataLoader."
            )
        self.indices: Int64[Tensor, " m"] | None = None
        self._batches = loader
        # What a loader of its own reads; None where there is no such loader.
        self._own: Int64[Tensor, " m"] | None = None
        self._loader, self._seed = loader, seed
        if isinstance(loader, DataLoader) and _has_length(loader):
            self._choose(loader, size)
        elif size is not None:
            self._from_batches(loader, size)

    @property
    def batches(self) -> Iterable[Any]:
        """What to iterate over, any number of times: this process's share of it."""
        if self._own is None or not isinstance(self._loader, DataLoader):
            return self._batches
        # A job may have begun since: Lightning starts its own when training begins.
        job = reducer()
        return self._sequential(self._loader, self._own[job.rank :: job.size])

    def _choose(self, loader: DataLoader[Any], size: int | None) -> None:
        count = len(loader.dataset)  # type: ignore[arg-type]
        if size is not None:
            self.indices = drawn(count, size, self._seed, known_labels(loader.dataset))
            self._own = self.indices
        elif _reads_each_once(loader):
            self._own = torch.arange(count)
        # Else a sampler of the caller's own says which samples count, and how often.

    def _sequential(
        self, loader: DataLoader[Any], indices: Int64[Tensor, " m"]
    ) -> DataLoader[Any]:
        return DataLoader(
            Subset(loader.dataset, indices.tolist()),
            batch_size=getattr(loader.batch_sampler, "batch_size", None) or _BATCH_SIZE,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            # An order that draws nothing needs a generator all the same, for the seed
            # of its workers; without one it would take it from the global generator.
            generator=torch.Generator().manual_seed(self._seed),
        )

    def _from_batches(self, loader: Iterable[Any], size: int) -> None:
        parts = [unpack(raw).labels for raw in loader]
        labels = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
        self.indices = drawn(len(labels), size, self._seed, labels)
        kept = list(_rows_of(loader, self.indices))
        found = [unpack(raw).labels for raw in kept]
        if not torch.equal(torch.cat(found or [labels]), labels[self.indices]):
            raise BatchError(
                "`loader` must give the same samples in the same order each time, for a "
                "subset of it to be drawn; it does not. Pass a DataLoader over a data set "
                "with a length, or a loader that does not shuffle."
            )
        self._batches = kept


def known_labels(data: object) -> Int64[Tensor, " n"] | None:
    """Return the labels of a data set if no sample has to be loaded for them.

    Args:
        data: A data set with ``targets`` or ``labels``, a ``TensorDataset`` whose last
            tensor they are, or a ``Subset`` of these.
    """
    if isinstance(data, Subset):
        inner = known_labels(data.dataset)
        return None if inner is None else inner[torch.as_tensor(list(data.indices))]
    candidates = [getattr(data, name, None) for name in _LABEL_ATTRIBUTES]
    if isinstance(data, TensorDataset):
        candidates.append(data.tensors[-1])
    for values in candidates:
        labels = _as_labels(values)
        if labels is not None and len(labels) == len(data):  # type: ignore[arg-type]
            return labels
    return None


def _as_labels(values: object) -> Int64[Tensor, " n"] | None:
    if not isinstance(values, Tensor | np.ndarray | list | tuple):
        return None
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None
    integers = not (labels.is_floating_point() or labels.is_complex())
    if labels.ndim != 1 or not integers or labels.dtype == torch.bool:
        return None
    return labels.long().cpu() if bool((labels >= 0).all()) else None


def _has_length(loader: DataLoader[Any]) -> bool:
    return not isinstance(loader.dataset, IterableDataset) and hasattr(
        loader.dataset, "__len__"
    )


def _reads_each_once(loader: DataLoader[Any]) -> bool:
    """Whether a pass reads every sample once, in one of the usual two orders."""
    if type(loader.batch_sampler) is not BatchSampler:
        return False
    if isinstance(loader.sampler, RandomSampler):
        sampler = loader.sampler
        return not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    return isinstance(loader.sampler, SequentialSampler)


def _rows_of(loader: Iterable[Any], indices: Int64[Tensor, " m"]) -> Iterator[Any]:
    """Yield the parts of batches at some positions of a pass."""
    start = 0
    for raw in loader:
        count = len(unpack(raw).labels)
        inside = indices[(indices >= start) & (indices < start + count)] - start
        if len(inside):
            yield _picked(raw, inside.tolist(), count)
        start += count


def _picked(value: Any, rows: Sequence[int], count: int) -> Any:  # noqa: ANN401 - keeps its type
    """Return some rows of everything in a batch that has a row for each sample."""
    if isinstance(value, Mapping):
        return {key: _picked(item, rows, count) for key, item in value.items()}
    if isinstance(value, Tensor | np.ndarray):
        has_rows = value.ndim > 0 and len(value) == count
        return value[list(rows)] if has_rows else value
    if isinstance(value, tuple | list):
        nested = any(isinstance(v, Tensor | np.ndarray | Mapping | list) for v in value)
        if nested or len(value) != count:
            return type(value)([_picked(item, rows, count) for item in value])
        return type(value)([value[row] for row in rows])
    return value
