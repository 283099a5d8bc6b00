"""Shares of samples that were classified rightly, from counts by class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


class Accuracies(ABC):
    """What follows from the number of samples, and of right decisions, of each class.

    A base of values that hold such counts in some form, and say how by
    :meth:`_right_and_all`.
    """

    @abstractmethod
    def _right_and_all(self) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
        """Return right decisions and samples of each true class."""

    @property
    def class_counts(self) -> Int64[Tensor, " K"]:
        """Samples of each true class."""
        return self._right_and_all()[1]

    @property
    def accuracy(self) -> float:
        """Share of samples predicted rightly; NaN without samples."""
        right, count = self._right_and_all()
        return float(right.sum().to(torch.float64) / count.sum())

    @property
    def class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class; NaN for classes without samples."""
        right, count = self._right_and_all()
        return right.to(torch.float64) / count

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
        right, count = self._right_and_all()
        rows = torch.tensor(classes, dtype=torch.int64, device=right.device)
        return float(right[rows].sum().to(torch.float64) / count[rows].sum())
