"""On/off patterns of units: how often each is above zero, and over what range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError
from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class UnitPatterns(Statistic):
    r"""How often each of :math:`d` units is on, that is above zero, and its range.

    Attributes:
        count: The number of observations :math:`n`.
        on: How many of them are above zero, with shape :math:`(d,)`.
        low: Smallest value of each unit, with shape :math:`(d,)`.
        high: Largest value of each unit, with shape :math:`(d,)`.

    Example:
        >>> h = torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 0.0]])
        >>> seen = UnitPatterns.of(h)
        >>> seen.entropy.tolist(), seen.dead.tolist(), seen.always_on.tolist()
        ([0.0, 0.0, 1.0], [True, False, False], [False, True, False])
    """

    count: Int64[Tensor, ""]
    on: Int64[Tensor, " d"]
    low: Float64[Tensor, " d"]
    high: Float64[Tensor, " d"]

    @classmethod
    def empty(cls, width: int) -> UnitPatterns:
        """Return the patterns of no data, the neutral element of ``merge``."""
        low = torch.full((width,), torch.inf, dtype=torch.float64)
        on = torch.zeros(width, dtype=torch.int64)
        return cls(on.sum(), on, low, -low)

    @classmethod
    def of(cls, values: Tensor) -> UnitPatterns:
        """Compute the patterns of some observations, on their device.

        Args:
            values: Outputs of the units, with shape :math:`(n, d)`. NaN is never on,
                and makes both ends of its unit's range NaN.

        Raises:
            ShapeError: If they have another shape.
        """
        if values.ndim != 2:
            raise ShapeError(
                "`values` must have shape (n, d), one row per observation; got "
                f"{tuple(values.shape)}. Flatten them with `values.flatten(1)`."
            )
        values = values.detach()
        if not len(values):
            return cls.empty(values.shape[1]).to(values.device)
        return cls(
            torch.tensor(len(values), device=values.device),
            (values > 0).sum(0),
            values.amin(0).to(torch.float64),
            values.amax(0).to(torch.float64),
        )

    @property
    def width(self) -> int:
        """The number of units :math:`d`."""
        return len(self.on)

    @property
    def on_share(self) -> Float64[Tensor, " d"]:
        """Share of observations on which each unit is on; NaN without any."""
        return self.on.to(torch.float64) / self.count

    @property
    def entropy(self) -> Float64[Tensor, " d"]:
        r"""Entropy of on against off of each unit, in bits.

        .. math:: -p \log_2 p - (1 - p) \log_2 (1 - p)

        with the share :math:`p` of observations on which it is on: 1 for a unit that is
        on for half of them, 0 for one that never switches. NaN without observations.
        """
        p = self.on_share
        bits: Tensor = torch.special.entr(p) + torch.special.entr(1 - p)
        return bits / math.log(2)

    @property
    def constant(self) -> Bool[Tensor, " d"]:
        """Units with one value on every observation, dead ones included."""
        return self.low == self.high

    @property
    def dead(self) -> Bool[Tensor, " d"]:
        """Units that are zero on every observation."""
        return self.constant & (self.low == 0)

    @property
    def always_on(self) -> Bool[Tensor, " d"]:
        """Units above zero on every observation; a ReLU there is the identity."""
        return (self.on == self.count) & (self.count > 0)

    @property
    def never_on(self) -> Bool[Tensor, " d"]:
        """Units above zero on no observation; dead ones, for a ReLU."""
        return (self.on == 0) & (self.count > 0)

    def _merged(self, other: UnitPatterns) -> UnitPatterns:
        return UnitPatterns(
            self.count + other.count,
            self.on + other.on,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
        )
