"""How many samples of each class were classified rightly, and no more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel.measurement.statistics.accuracies import Accuracies
from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class RightDecisions(Accuracies, Statistic):
    """Right decisions and samples of each class, for more classes than pairs fit.

    Attributes:
        right: Samples of each class predicted rightly, with shape :math:`(K,)`.
        count: Samples of each class, with shape :math:`(K,)`.

    See Also:
        :class:`Confusion`: Which class was taken for which, in :math:`O(K^2)` memory.

    Example:
        >>> labels, predictions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
        >>> decisions = RightDecisions.of(labels, predictions, num_classes=3)
        >>> decisions.accuracy, decisions.class_accuracy.tolist()
        (0.75, [0.5, 1.0, nan])
    """

    right: Int64[Tensor, " K"]
    count: Int64[Tensor, " K"]

    @classmethod
    def empty(cls, num_classes: int) -> RightDecisions:
        """Return the counts of no data, the neutral element of ``merge``."""
        zeros = torch.zeros(num_classes, dtype=torch.int64)
        return cls(zeros, zeros.clone())

    @classmethod
    def of(
        cls,
        labels: Int64[Tensor, " n"],
        predictions: Int64[Tensor, " n"],
        num_classes: int,
    ) -> RightDecisions:
        """Count class indices in :math:`[0, K)`."""
        right = torch.bincount(labels[labels == predictions], minlength=num_classes)
        return cls(right, torch.bincount(labels, minlength=num_classes))

    def add_(
        self, labels: Int64[Tensor, " n"], predictions: Int64[Tensor, " n"]
    ) -> None:
        """Count further decisions in place."""
        self.right.index_add_(0, labels, (labels == predictions).to(torch.int64))
        self.count.index_add_(0, labels, torch.ones_like(labels))

    def _right_and_all(self) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
        return self.right, self.count

    def _merged(self, other: RightDecisions) -> RightDecisions:
        return RightDecisions(self.right + other.right, self.count + other.count)
