"""The sum of a loss over samples, whose mean is what training reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class LossSum(Statistic):
    """A sum of losses and the number of samples.

    Attributes:
        total: Sum over samples, with shape :math:`()`.
        count: Number of samples, with shape :math:`()`.

    Example:
        >>> LossSum.of(torch.tensor([0.5, 1.0, 0.0])).mean
        0.5
    """

    total: Float64[Tensor, ""]
    count: Int64[Tensor, ""]

    @classmethod
    def empty(cls) -> LossSum:
        """Return the sum over no data, the neutral element of ``merge``."""
        return cls.of(torch.zeros(0))

    @classmethod
    def of(cls, losses: Tensor) -> LossSum:
        """Add up the losses of samples, with shape :math:`(n,)`."""
        total = losses.detach().to(torch.float64).sum()
        return cls(total, torch.full_like(total, len(losses), dtype=torch.int64))

    @property
    def mean(self) -> float:
        """Mean over samples; NaN without any."""
        return float(self.total / self.count)

    def _merged(self, other: LossSum) -> LossSum:
        return LossSum(self.total + other.total, self.count + other.count)
