"""Mean and spread of numbers that come in pieces, such as those of all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """Number, mean and sum of squared deviations of some numbers.

    Pieces are merged about their own means, so that nearly equal numbers keep the digits
    of their differences.

    References:
        | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
        | (Chan, Golub & LeVeque, 1979)

    Attributes:
        count: How many numbers there are.
        mean: Their mean; zero when there are none.
        deviations: The sum of their squared deviations from the mean.

    Example:
        >>> import torch
        >>> spread = Spread.over(torch.tensor([1.0, 2.0, 3.0, 6.0]).double().split(3))
        >>> spread.mean, spread.std()
        (3.0, 1.8708286933869707)
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0

    @classmethod
    def over(cls, pieces: Iterable[Float64[Tensor, " _"]]) -> Spread:
        """Return the spread of the numbers in all pieces together."""
        spread = cls()
        for piece in pieces:
            spread = spread.merge(cls.of(piece))
        return spread

    @classmethod
    def of(cls, values: Float64[Tensor, " values"]) -> Spread:
        """Return the spread of one piece."""
        if not len(values):
            return cls()
        mean = values.mean()
        deviations = (values - mean).square().sum()
        return cls(len(values), float(mean), float(deviations))

    def merge(self, other: Spread) -> Spread:
        """Combine with other numbers."""
        count = self.count + other.count
        delta, share = other.mean - self.mean, other.count / max(1, count)
        return Spread(
            count,
            self.mean + share * delta,
            self.deviations + other.deviations + delta**2 * self.count * share,
        )

    def std(self, correction: int = 0) -> float:
        """Return the standard deviation; NaN for no more than ``correction`` numbers."""
        degrees = self.count - correction
        return math.sqrt(self.deviations / degrees) if degrees > 0 else math.nan
