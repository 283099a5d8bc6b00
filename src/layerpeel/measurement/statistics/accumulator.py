"""Moments of a stream: small batches are gathered before they are folded."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel.measurement.statistics.moments import (
    ClassMoments,
    chunk_rows,
    folded,
    near,
)


class MomentsAccumulator:
    """Accumulates :class:`ClassMoments` over batches of any size.

    Folding a single sample costs as much as folding a few thousand, so rows are
    gathered first, in their own dtype. Memory is independent of the number of samples.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The number of features :math:`d`.
        light: Whether to leave out the :math:`(d, d)` scatter.

    Example:
        >>> stream = MomentsAccumulator(num_classes=2, width=1)
        >>> for value, label in [(1.0, 0), (3.0, 0), (7.0, 1)]:
        ...     stream.add(torch.tensor([[value]]), torch.tensor([label]))
        >>> stream.value().mean.tolist()
        [[2.0], [7.0]]
    """

    def __init__(self, num_classes: int, width: int, *, light: bool = False) -> None:
        # About the origin.
        self._moments = ClassMoments.empty(num_classes, width, light=light)
        self._origin: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._rows = 0

    def add(self, features: Tensor, labels: Int64[Tensor, " n"]) -> None:
        """Add samples.

        Args:
            features: Finite features of any floating type, with shape :math:`(n, d)`.
                They are kept until they are folded: do not overwrite them.
            labels: Valid class indices, with shape :math:`(n,)`.
        """
        self._waiting.append((features, labels))
        self._rows += len(labels)
        if self._rows >= chunk_rows(self._moments.num_classes):
            self._fold()

    def value(self) -> ClassMoments:
        """Return the moments of all samples added so far."""
        self._fold()
        if self._origin is None:
            return self._moments
        return self._moments.moved(self._origin)

    def _fold(self) -> None:
        if not self._rows:
            return
        features, labels = (
            parts[0] if len(parts) == 1 else torch.cat(parts)
            for parts in zip(*self._waiting, strict=True)
        )
        self._waiting, self._rows = [], 0
        if self._origin is None:
            # One origin for the whole stream: means are merged while they are small.
            self._origin = near(features)
            self._moments = self._moments.to(features.device)
        self._moments = folded(self._moments, self._origin, features, labels)
