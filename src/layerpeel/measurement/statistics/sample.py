"""A few features of every class, kept for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

_PER_CLASS = 60
# With thousands of classes and features, sixty each would outweigh the model.
_SAMPLE_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class FeatureSample:
    """The first features seen of each class.

    Attributes:
        features: Features, with shape :math:`(m, d)`.
        labels: Their class indices, with shape :math:`(m,)`.
    """

    features: Float32[Tensor, "m d"]
    labels: Int64[Tensor, " m"]


class SampleCollector:
    """Keeps up to 60 first-seen features per class, fewer when they exceed 64 MB.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The number of features :math:`d`.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        affordable = _SAMPLE_BYTES // (4 * num_classes * max(1, width))
        self._room = torch.full((num_classes,), min(_PER_CLASS, max(1, affordable)))
        self._width = width
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, labels: Int64[Tensor, " n"]) -> None:
        """Keep what there is room for."""
        if not bool((self._room[labels] > 0).any()):
            return
        keep = _rank_in_class(labels) < self._room[labels]
        self._room -= torch.bincount(labels[keep], minlength=len(self._room))
        self._kept.append((features[keep].to(torch.float32), labels[keep]))

    def value(self) -> FeatureSample:
        """Return what was kept, in the order seen."""
        start = (torch.zeros(0, self._width), torch.zeros(0, dtype=torch.int64))
        features, labels = zip(start, *self._kept, strict=True)
        return FeatureSample(torch.cat(features), torch.cat(labels))


def _rank_in_class(labels: Tensor) -> Tensor:
    """Return how many earlier entries carry the same label, for each entry."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[order]]
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - first
    return ranks
