r"""What was measured of a last layer: a value, and every metric that it yields."""

from __future__ import annotations

import warnings
from typing import Any

from layerpeel._checks import UndefinedWarning
from layerpeel._json import plain
from layerpeel.measurement.layer_metrics import LayerMetrics
from layerpeel.measurement.sections import sections


class Measurement(LayerMetrics):
    """The last layer of a network on some data.

    Numbers are float64 on the CPU. Classes without samples have NaN wherever their
    features would be needed; means over classes leave them out.

    Values that were accumulated and accuracies are those of
    :class:`~layerpeel.measurement.observation.Observation`, metrics those of
    :class:`~layerpeel.measurement.layer_metrics.LayerMetrics`.

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

    def to_dict(self) -> dict[str, Any]:
        """Return everything that is a number or a name, ready for JSON.

        Undefined numbers become ``None``, as JSON has no NaN.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedWarning)
            content: dict[str, Any] = plain(sections(self))
        return content

    def __repr__(self) -> str:
        """One line with what is looked at first."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedWarning)
            collapse = self.nc1_quotient()
        return (
            f"Measurement({self.num_classes} classes, {self.num_samples} samples, "
            f"width {self.width}, head {self.head!r}, accuracy {self.accuracy:.4f}, "
            f"NC1 quotient {collapse:.3g})"
        )
