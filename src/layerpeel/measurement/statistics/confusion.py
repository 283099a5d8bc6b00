"""Which class was taken for which, as counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of true against predicted classes.

    Attributes:
        counts: Samples of class :math:`j` predicted as class :math:`k` in row :math:`j`
            and column :math:`k`, with shape :math:`(K, K)`.

    Example:
        >>> labels, predictions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
        >>> confusion = Confusion.of(labels, predictions, num_classes=3)
        >>> confusion.accuracy, confusion.class_accuracy.tolist()
        (0.75, [0.5, 1.0, nan])
    """

    counts: Int64[Tensor, "K K"]

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        """Return the counts of no data, the neutral element of :meth:`merge`."""
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

    def merge(self, other: Confusion) -> Confusion:
        """Combine with the counts of disjoint data."""
        return Confusion(self.counts + other.counts)

    def add_(
        self, labels: Int64[Tensor, " n"], predictions: Int64[Tensor, " n"]
    ) -> None:
        """Count further pairs in place, at a cost that does not grow with :math:`K`."""
        pairs = labels * len(self.counts) + predictions
        self.counts.view(-1).index_add_(0, pairs, torch.ones_like(pairs))

    @property
    def class_counts(self) -> Int64[Tensor, " K"]:
        """Samples of each true class."""
        return self.counts.sum(1)

    @property
    def accuracy(self) -> float:
        """Share of samples predicted rightly; NaN without samples."""
        return self.group_accuracy(range(len(self.counts)))

    @property
    def class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class; NaN for classes without samples."""
        return self.counts.diagonal().to(torch.float64) / self.class_counts

    def group_recall(self, classes: Sequence[int]) -> float:
        """Return the recall averaged over some classes, each with the same weight.

        Args:
            classes: Class indices; those without samples are left out.

        Returns:
            The mean; NaN when none of the classes has samples.
        """
        return float(self.class_accuracy[list(classes)].nanmean())

    def group_accuracy(self, classes: Sequence[int]) -> float:
        """Return the share of samples of some classes predicted rightly.

        Every sample counts once, so that a frequent class weighs more than a rare one.

        Args:
            classes: Class indices.

        Returns:
            The share; NaN when the classes have no samples.
        """
        rows = torch.tensor(classes, dtype=torch.int64)
        right = self.counts.diagonal()[rows].sum().to(torch.float64)
        return float(right / self.class_counts[rows].sum())
