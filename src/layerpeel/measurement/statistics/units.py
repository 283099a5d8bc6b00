"""The range of each unit, which shows units that never move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class UnitRange(Statistic):
    """Smallest and largest value of each of the :math:`d` features.

    Attributes:
        low: Smallest value over all samples, with shape :math:`(d,)`.
        high: Largest value over all samples, with shape :math:`(d,)`.

    Example:
        >>> seen = UnitRange.of(torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 3.0]]))
        >>> seen.dead.tolist(), seen.constant.tolist()
        ([True, False, False], [True, True, False])
    """

    low: Float64[Tensor, " d"]
    high: Float64[Tensor, " d"]

    @classmethod
    def empty(cls, width: int) -> UnitRange:
        """Return the range of no data, the neutral element of ``merge``."""
        low = torch.full((width,), torch.inf, dtype=torch.float64)
        return cls(low, -low)

    @classmethod
    def of(cls, features: Tensor) -> UnitRange:
        """Compute the range of samples, with shape :math:`(n, d)`.

        NaN anywhere in a column makes both ends NaN.
        """
        if not len(features):
            return cls.empty(features.shape[1]).to(features.device)
        # Two reductions: on CPU the joint one (aminmax) is several times slower.
        low, high = features.detach().amin(0), features.detach().amax(0)
        return cls(low.to(torch.float64), high.to(torch.float64))

    def _merged(self, other: UnitRange) -> UnitRange:
        return UnitRange(
            torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        )

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return bool(self.low.isfinite().all() and self.high.isfinite().all())

    @property
    def constant(self) -> Bool[Tensor, " d"]:
        """Units with one value for every sample, dead ones included."""
        return self.low == self.high

    @property
    def dead(self) -> Bool[Tensor, " d"]:
        """Units that are zero for every sample."""
        return self.constant & (self.low == 0)
