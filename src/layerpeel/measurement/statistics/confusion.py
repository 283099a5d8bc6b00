"""Which class was taken for which, as counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel.measurement.statistics.accuracies import Accuracies
from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class Confusion(Accuracies, Statistic):
    """Counts of true against predicted classes.

    Attributes:
        counts: Samples of class :math:`j` predicted as class :math:`k` in row :math:`j`
            and column :math:`k`, with shape :math:`(K, K)`.

    See Also:
        :class:`RightDecisions`: The same accuracies in :math:`O(K)` memory.

    Example:
        >>> labels, predictions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
        >>> confusion = Confusion.of(labels, predictions, num_classes=3)
        >>> confusion.accuracy, confusion.class_accuracy.tolist()
        (0.75, [0.5, 1.0, nan])
    """

    counts: Int64[Tensor, "K K"]

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        """Return the counts of no data, the neutral element of ``merge``."""
        return cls(torch.zeros(num_classes, num_classes, dtype=torch.int64))

    @classmethod
    def of(
        cls,
        labels: Int64[Tensor, " n"],
        predictions: Int64[Tensor, " n"],
        num_classes: int,
    ) -> Confusion:
        """Count pairs of class indices in :math:`[0, K)`."""
        pairs = labels * num_classes + predictions
        counts = torch.bincount(pairs, minlength=num_classes**2)
        return cls(counts.view(num_classes, num_classes))

    def add_(
        self, labels: Int64[Tensor, " n"], predictions: Int64[Tensor, " n"]
    ) -> None:
        """Count further pairs in place, at a cost that does not grow with :math:`K`."""
        pairs = labels * len(self.counts) + predictions
        self.counts.view(-1).index_add_(0, pairs, torch.ones_like(pairs))

    def _right_and_all(self) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
        return self.counts.diagonal(), self.counts.sum(1)

    def _merged(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)
