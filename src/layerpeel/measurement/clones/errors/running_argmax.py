"""Which of many classifiers err, from logits that come class by class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


class RunningArgmax:
    """The largest logits so far, and those of the own class, in memory that is reused.

    Of equal logits the first class wins, as in ``argmax``: the own one is lost to an
    earlier class that reaches it, and to a later one that exceeds it.

    Args:
        rows: The number of classifiers.
        samples: The number of samples.
        classes: The number of logits, at least two.
    """

    def __init__(self, rows: int, samples: int, classes: int) -> None:
        self._largest = torch.empty(rows, samples, dtype=torch.float64)
        self._own = torch.empty_like(self._largest)
        self._lost = torch.empty(rows, samples, dtype=torch.bool)
        self._beaten = torch.empty_like(self._lost)
        self._classes = torch.arange(classes)
        self._ends: list[int] = []

    def begin(self, labels: Int64[Tensor, " n"]) -> None:
        """Begin with samples whose class indices are in rising order."""
        ends = torch.searchsorted(labels, self._classes, right=True)
        self._ends = [0, *ends.tolist()]

    def enter(self, k: int, logits: Float64[Tensor, "rows n"]) -> None:
        """Take in the logits of the next class, beginning with class 0."""
        own = slice(*self._ends[k : k + 2])
        if own.start < own.stop:
            self._own[:, own] = logits[:, own]
            lost = self._lost[:, own]
            if k == 0:
                lost.fill_(value=False)
            else:
                torch.ge(self._largest[:, own], logits[:, own], out=lost)
        if k == 0:
            self._largest.copy_(logits)
        else:
            torch.maximum(self._largest, logits, out=self._largest)

    def wrong(self) -> Bool[Tensor, "rows n"]:
        """Return which samples each classifier gets wrong, after the last class."""
        torch.gt(self._largest, self._own, out=self._beaten)
        return self._lost.logical_or_(self._beaten)
