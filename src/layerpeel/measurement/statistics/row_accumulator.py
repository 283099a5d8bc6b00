"""Row statistics of a stream: small batches are gathered before they are folded."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import class_indices
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from layerpeel.measurement.statistics.loss import LossSum
from layerpeel.measurement.statistics.margins import Margins
from layerpeel.measurement.statistics.moments import check_rows, chunk_rows
from layerpeel.measurement.statistics.outcomes import Outcomes, outcomes
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.sample import SampleCollector
from layerpeel.measurement.statistics.units import UnitRange


class RowAccumulator:
    """Accumulates :class:`RowStatistics` over batches of any size.

    Logits are reduced at once to a decision, a loss and a margin; the rest is gathered
    until there is enough of it to be worth folding.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The number of features :math:`d`.
        light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory.

    Example:
        >>> rows = RowAccumulator(num_classes=2, width=2)
        >>> for k in (0, 1):
        ...     _ = rows.add(torch.eye(2)[[k]], torch.tensor([k]), torch.eye(2)[[k]])
        >>> rows.value().confusion.counts.tolist()
        [[1, 0], [0, 1]]
    """

    def __init__(self, num_classes: int, width: int, *, light: bool = False) -> None:
        self._folded = RowStatistics.empty(num_classes, width, light=light)
        self._moments = MomentsAccumulator(num_classes, width, light=light)
        self._sample = SampleCollector(num_classes, width)
        self._waiting: list[tuple[Tensor, ...]] = []
        self._rows = 0

    def add(
        self, features: Tensor, labels: Tensor, logits: Tensor
    ) -> Int64[Tensor, " n"]:
        """Add samples.

        Args:
            features: Finite features of any floating type, with shape :math:`(n, d)`.
                They are kept until they are folded: do not overwrite them.
            labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
            logits: Finite logits, with shape :math:`(n, K)`.

        Returns:
            The decisions: the indices of the largest logits, with shape :math:`(n,)`.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no index in :math:`[0, K)`.
        """
        check_rows(features, labels)
        classes = self._folded.moments.num_classes
        labels = class_indices(labels, classes)
        found = outcomes(logits, labels)
        self._waiting.append((features.detach(), labels, *found))
        self._rows += len(labels)
        if self._rows >= chunk_rows(classes):
            self._fold()
        return found.predictions

    def value(self) -> RowStatistics:
        """Return the statistics of all samples added so far."""
        self._fold()
        return replace(
            self._folded,
            moments=self._moments.value(),
            # Counted in place: the value must not go on counting.
            confusion=self._folded.confusion.copied(),
            sample=self._sample.value(),
        )

    def _fold(self) -> None:
        if not self._rows:
            return
        features, labels, *rest = (
            column[0] if len(column) == 1 else torch.cat(column)
            for column in zip(*self._waiting, strict=True)
        )
        self._waiting, self._rows = [], 0
        found, folded = Outcomes(*rest), self._folded.to(features.device)
        self._moments.add(features, labels)
        self._sample.add(features, labels)
        folded.confusion.add_(labels, found.predictions)
        margins = Margins.of_values(found.margins, labels, folded.moments.num_classes)
        self._folded = replace(
            folded,
            loss=folded.loss.merge(LossSum.of(found.losses)),
            margins=folded.margins.merge(margins),
            units=folded.units.merge(UnitRange.of(features)),
        )
