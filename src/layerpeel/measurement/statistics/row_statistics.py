"""Everything that one look at features, labels and logits gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.loss import LossSum
from layerpeel.measurement.statistics.margins import Margins
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.outcomes import outcomes
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.statistic import Statistic
from layerpeel.measurement.statistics.units import UnitRange


@dataclass(frozen=True, eq=False)
class RowStatistics(Statistic):
    r"""A last layer's features, labels and logits, seen once.

    Class means of the logits are not among them: they are :math:`W \mu_k + b`.

    Attributes:
        moments: Counts, means and scatter of the features, per class.
        confusion: Decisions against true classes; their counts alone in light mode.
        loss: Cross-entropy of the logits.
        margins: Distribution of the margins of the logits, per class.
        units: Range of each feature.
        sample: A few features of each class, for pictures.

    Example:
        >>> import torch
        >>> h, y = torch.eye(3), torch.tensor([0, 1, 2])
        >>> whole = RowStatistics.of(h, y, logits=5 * h)
        >>> parts = RowStatistics.of(h[:1], y[:1], 5 * h[:1]).merge(
        ...     RowStatistics.of(h[1:], y[1:], 5 * h[1:])
        ... )
        >>> parts.confusion.accuracy, parts.loss.mean == whole.loss.mean
        (1.0, True)
    """

    moments: ClassMoments
    confusion: Confusion | RightDecisions
    loss: LossSum
    margins: Margins
    units: UnitRange
    sample: FeatureSample

    @classmethod
    def empty(
        cls, num_classes: int, width: int, *, light: bool = False
    ) -> RowStatistics:
        """Return the value of no data, the neutral element of ``merge``.

        Args:
            num_classes: The number of classes :math:`K`.
            width: The number of features :math:`d`.
            light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory.
        """
        decisions = RightDecisions if light else Confusion
        return cls(
            ClassMoments.empty(num_classes, width, light=light),
            decisions.empty(num_classes),
            LossSum.empty(),
            Margins.empty(num_classes),
            UnitRange.empty(width),
            FeatureSample.empty(num_classes, width),
        )

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, logits: Tensor, *, light: bool = False
    ) -> RowStatistics:
        """Compute the value of some samples, where they are.

        Args:
            features: Finite features, with shape :math:`(n, d)`.
            labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
            logits: Finite logits, with shape :math:`(n, K)`.
            light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no index in :math:`[0, K)`.
        """
        classes = logits.shape[1]
        moments = ClassMoments.of(features, labels, classes, light=light)
        labels = labels.long()
        found = outcomes(logits, labels)
        decisions = RightDecisions if light else Confusion
        return cls(
            moments,
            decisions.of(labels, found.predictions, classes),
            LossSum.of(found.losses),
            Margins.of_values(found.margins, labels, classes),
            UnitRange.of(features),
            FeatureSample.of(features, labels, classes),
        )

    @property
    def light(self) -> bool:
        """Whether what takes :math:`d^2` or :math:`K^2` memory was left out."""
        return self.moments.light
