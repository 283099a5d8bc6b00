"""What was seen of a last layer, and how well it classifies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel.geometry import ClassGroups
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.sources.classes import grouped_classes
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.margins import Margins
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.units import UnitRange


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """What was seen of the last layer of a network on some data.

    Numbers are float64 on the CPU. Classes without samples have NaN wherever their
    features would be needed; means over classes leave them out.

    Attributes:
        statistics: What one look at the data gives: moments, decisions, loss, margins.
        nearest_mean: Agreement of the network with the nearest class mean (NC4), from a
            second look; ``None`` if it was not measured.
        eval_confusion: Decisions on held-out data; ``None`` without any.
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`; ``None`` without one.
        head: Path of the head in the model; ``"arrays"`` for features from elsewhere.
        class_names: Names of the classes; their indices as text by default.
        minority: Indices of the minority classes as the caller named them; ``None`` if
            classes are split by their counts.
        profile: Statistics of further layers; ``None`` if none were asked for.
    """

    statistics: RowStatistics
    nearest_mean: NearestMean | None
    eval_confusion: Confusion | RightDecisions | None
    weight: Float64[Tensor, "K d"]
    bias: Float64[Tensor, " K"] | None
    head: str
    class_names: tuple[str, ...]
    minority: tuple[int, ...] | None = None
    profile: LayerProfile | None = None

    # What was accumulated

    @property
    def moments(self) -> ClassMoments:
        """Counts, means and scatter of the features, per class."""
        return self.statistics.moments

    @property
    def confusion(self) -> Confusion | RightDecisions:
        """Decisions on the data that the moments describe."""
        return self.statistics.confusion

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the logits."""
        return self.statistics.loss.mean

    @property
    def margins(self) -> Margins:
        """Distribution of the margins of the logits, per class."""
        return self.statistics.margins

    @property
    def units(self) -> UnitRange:
        """Range of each feature."""
        return self.statistics.units

    @property
    def sample(self) -> FeatureSample:
        """A few features of each class, for pictures."""
        return self.statistics.sample

    @property
    def light(self) -> bool:
        """Whether what takes :math:`d^2` or :math:`K^2` memory was left out."""
        return self.statistics.light

    @cached_property
    def groups(self) -> ClassGroups:
        """Which classes are frequent and which are rare."""
        return grouped_classes(self.minority, self.class_counts)

    # Sizes

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`, seen or not."""
        return self.moments.num_classes

    @property
    def num_samples(self) -> int:
        """The number of samples :math:`N`."""
        return self.moments.num_samples

    @property
    def width(self) -> int:
        """The number of features :math:`d`."""
        return self.moments.width

    @property
    def class_counts(self) -> tuple[int, ...]:
        """The number of samples of each class."""
        return tuple(int(n) for n in self.moments.count)

    # Accuracies

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly."""
        return self.confusion.accuracy

    @property
    def class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class; NaN for classes without samples."""
        return self.confusion.class_accuracy

    @property
    def majority_accuracy(self) -> float:
        """Share of samples of majority classes classified rightly."""
        return self.confusion.group_accuracy(self.groups.majority)

    @property
    def minority_accuracy(self) -> float:
        """The same for minority classes; NaN with a warning without a minority."""
        return self._of_minority(self.confusion.group_accuracy(self.groups.minority))

    @property
    def eval_accuracy(self) -> float:
        """Accuracy on held-out data; NaN with a warning without any."""
        return self._of_eval(range(self.num_classes))

    @property
    def eval_class_accuracy(self) -> Float64[Tensor, " K"]:
        """Recall of each class on held-out data; NaN with a warning without any."""
        if self.eval_confusion is None:
            nan = undefined(_NO_EVAL)
            return torch.full((self.num_classes,), nan, dtype=torch.float64)
        return self.eval_confusion.class_accuracy

    @property
    def eval_majority_accuracy(self) -> float:
        """Accuracy on held-out data of majority classes; NaN without any."""
        return self._of_eval(self.groups.majority)

    @property
    def eval_minority_accuracy(self) -> float:
        """Accuracy on held-out data of minority classes; NaN without any."""
        return self._of_minority(self._of_eval(self.groups.minority))

    # Units

    @property
    def dead_units(self) -> Int64[Tensor, " dead"]:
        """Indices of features that are zero for every sample."""
        return self.units.dead.nonzero().flatten()

    @property
    def constant_units(self) -> Int64[Tensor, " constant"]:
        """Indices of features with one value for every sample, dead ones included."""
        return self.units.constant.nonzero().flatten()

    def _of_minority(self, value: float) -> float:
        return undefined(_NO_MINORITY) if self.groups.balanced else value

    def _of_eval(self, classes: range | tuple[int, ...]) -> float:
        if self.eval_confusion is None:
            return undefined(_NO_EVAL)
        return self.eval_confusion.group_accuracy(classes)


_NO_EVAL = (
    "Accuracy on held-out data is undefined (NaN): there are none. Pass `eval_loader`, "
    "or `eval_features` and `eval_labels`."
)
_NO_MINORITY = (
    "Minority statistics are undefined (NaN): the classes are balanced. Name the "
    "minority with `minority=[...]`."
)
