"""Rows of small batches, gathered until they are worth folding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# A fold costs a few dozen calls, and one of a (d, d) scatter as much as d rows: 8 MB
# are a thousand rows of two thousand features. Every layer may hold as much.
_GATHERED_BYTES = 2**23


class Gatherer:
    """Hands rows on to a function, several batches at a time.

    Args:
        fold: Called with one tensor per column, its rows in the order they were added.

    Example:
        >>> sizes = []
        >>> gatherer = Gatherer(lambda rows: sizes.append(len(rows)))
        >>> for _ in range(3):
        ...     gatherer.add(torch.zeros(2, 4))
        >>> gatherer.flush()
        >>> sizes
        [6]
    """

    def __init__(self, fold: Callable[..., None]) -> None:
        self._fold = fold
        self._waiting: list[tuple[Tensor, ...]] = []
        self._bytes = 0

    def add(self, *columns: Tensor) -> None:
        """Add rows, one tensor per column; they may be overwritten afterwards."""
        self._bytes += sum(column.nbytes for column in columns)
        if self._bytes >= _GATHERED_BYTES:
            self._waiting.append(columns)
            self.flush()
        else:
            self._waiting.append(tuple(column.clone() for column in columns))

    def flush(self) -> None:
        """Fold what waits."""
        if not self._waiting:
            return
        columns = [
            parts[0] if len(parts) == 1 else torch.cat(parts)
            for parts in zip(*self._waiting, strict=True)
        ]
        self._waiting, self._bytes = [], 0
        self._fold(*columns)
