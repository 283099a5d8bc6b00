"""How far outputs vary about their mean, over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerpeel._tolerances import CONSTANT_ULPS


@dataclass
class Spread:
    """Sums of rows about an origin near them, so that they do not cancel.

    Example:
        >>> spread = Spread()
        >>> spread.add(torch.tensor([[1.0], [3.0]]))
        >>> spread.add(torch.tensor([[5.0]]))
        >>> spread.energy
        8.0
    """

    count: int = 0
    origin: Tensor | None = None
    sums: Tensor | None = None
    squares: float = 0.0
    length: float = 0.0
    eps: float = 0.0

    def add(self, rows: Tensor) -> None:
        """Add rows, with shape :math:`(n, C)`."""
        self.eps = max(self.eps, float(torch.finfo(rows.dtype).eps))
        rows = rows.detach().double()
        if self.origin is None or self.sums is None:
            self.origin = rows.mean(0)
            self.sums = torch.zeros_like(self.origin)
        about = rows - self.origin
        self.count += len(rows)
        self.sums += about.sum(0)
        self.squares += float(about.square().sum())
        self.length += float(rows.square().sum())

    @property
    def energy(self) -> float:
        """The sum of squared distances of the rows to their mean."""
        if self.sums is None:
            return 0.0
        return max(0.0, self.squares - float(self.sums.square().sum()) / self.count)

    @property
    def rounding(self) -> float:
        """The sum of squares that rounding may leave of equal rows."""
        return (CONSTANT_ULPS * self.eps) ** 2 * self.length


def relative(change: float, spreads: Sequence[Spread]) -> float:
    """Return a change relative to how far outputs vary; infinite if they do not.

    Args:
        change: The root of a sum of squares.
        spreads: How far the outputs vary, of all of them.
    """
    energy = sum(spread.energy for spread in spreads)
    rounding = sum(spread.rounding for spread in spreads)
    if energy > rounding:
        return change / math.sqrt(energy)
    return 0.0 if change**2 <= rounding else math.inf
