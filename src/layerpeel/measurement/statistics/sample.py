"""A few features of every class, kept for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from layerpeel._checks import MergeError
from layerpeel.measurement.statistics.statistic import Statistic

_PER_CLASS = 60
# With thousands of classes and features, sixty each would outweigh the model.
_SAMPLE_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class FeatureSample(Statistic):
    """The first features seen of each class.

    Merging keeps those of the first value before those of the second, so which are kept
    depends on the order where there is no room for all; how many of each class does not.

    Attributes:
        features: Features, with shape :math:`(m, d)`.
        labels: Their class indices, with shape :math:`(m,)`.
        most: The largest number kept of one class.

    Example:
        >>> sample = FeatureSample.empty(num_classes=2, width=1)
        >>> sample.most, sample.features.shape
        (60, torch.Size([0, 1]))
    """

    growing: ClassVar[tuple[str, ...]] = ("features", "labels")

    features: Float32[Tensor, "m d"]
    labels: Int64[Tensor, " m"]
    most: int

    @classmethod
    def empty(cls, num_classes: int, width: int) -> FeatureSample:
        """Return the sample of no data, the neutral element of ``merge``.

        There is room for 60 of each class, or for fewer when they would exceed 64 MB.

        Args:
            num_classes: The number of classes :math:`K`.
            width: The number of features :math:`d`.
        """
        affordable = _SAMPLE_BYTES // (4 * num_classes * max(1, width))
        most = min(_PER_CLASS, max(1, affordable))
        return cls(torch.zeros(0, width), torch.zeros(0, dtype=torch.int64), most)

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, num_classes: int) -> FeatureSample:
        """Keep the first features of each class, of those with shape :math:`(n, d)`."""
        collector = SampleCollector(num_classes, features.shape[1])
        collector.add(features, labels)
        return collector.value()

    def _merged(self, other: FeatureSample) -> FeatureSample:
        if self.features.shape[1] != other.features.shape[1]:
            raise MergeError(
                "Two FeatureSample values merge when they agree in the width of "
                f"`features`; got {self.features.shape[1]} and "
                f"{other.features.shape[1]}. Measure both the same way."
            )
        labels = torch.cat([self.labels, other.labels])
        features = torch.cat([self.features, other.features])
        keep = _rank_in_class(labels) < self.most
        return FeatureSample(features[keep], labels[keep], self.most)


class SampleCollector:
    """Collects a :class:`FeatureSample` from batches of any size.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The number of features :math:`d`.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        self._empty = FeatureSample.empty(num_classes, width)
        self._room = torch.full((num_classes,), self._empty.most)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, labels: Int64[Tensor, " n"]) -> None:
        """Keep what there is room for."""
        self._room = self._room.to(labels.device)
        if not bool((self._room[labels] > 0).any()):
            return
        keep = _rank_in_class(labels) < self._room[labels]
        self._room -= torch.bincount(labels[keep], minlength=len(self._room))
        self._kept.append((features.detach()[keep].to(torch.float32), labels[keep]))

    def value(self) -> FeatureSample:
        """Return what was kept, in the order seen."""
        if not self._kept:
            return self._empty
        features, labels = zip(*self._kept, strict=True)
        return FeatureSample(torch.cat(features), torch.cat(labels), self._empty.most)


def _rank_in_class(labels: Tensor) -> Tensor:
    """Return how many earlier entries carry the same label, for each entry."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[order]]
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels), device=labels.device) - first
    return ranks
