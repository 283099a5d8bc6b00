"""NC4 in a single look: against the class means of what was seen so far."""

from __future__ import annotations

import torch
from torch import Tensor

from layerpeel.measurement.statistics.moments import (
    ClassMoments,
    chunk_rows,
    folded,
    near,
)
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean


class RunningNearestMean:
    """Compares samples with the class means of all samples up to and with theirs.

    An approximation: the first samples are compared with means of few, and a class has
    none before its first. Samples are gathered by the thousand, which makes the means
    of shuffled data good from the start; data sorted by class are compared with the
    classes up to theirs. In return, nothing is kept, and the data are read once.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The number of features :math:`d`.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        self._moments = ClassMoments.empty(num_classes, width, light=True)
        self._nearest = NearestMean.empty(num_classes)
        self._origin: Tensor | None = None
        self._waiting: list[Decisions] = []
        self._rows = 0

    def add(self, decisions: Decisions) -> None:
        """Add samples, which are kept until they are compared: do not overwrite them."""
        self._waiting.append(decisions)
        self._rows += len(decisions.labels)
        if self._rows >= chunk_rows(self._moments.num_classes):
            self._fold()

    def value(self) -> NearestMean:
        """Return the agreement of all samples added so far."""
        self._fold()
        return self._nearest.without_means("running means")

    def _fold(self) -> None:
        if not self._rows:
            return
        rows = Decisions(*map(torch.cat, zip(*self._waiting, strict=True)))
        self._waiting, self._rows = [], 0
        if self._origin is None:
            self._origin = near(rows.features)
            self._moments = self._moments.to(rows.features.device)
        self._moments = folded(self._moments, self._origin, rows.features, rows.labels)
        centred = Decisions(rows.features - self._origin, rows.labels, rows.predictions)
        nearest = NearestMean.of([centred], self._moments)
        self._nearest = self._nearest.to(nearest.count.device).merge(
            nearest.without_means("running means")
        )
