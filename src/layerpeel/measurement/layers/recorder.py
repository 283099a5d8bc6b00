"""The statistics of one layer, as they grow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel.measurement.layers.gatherer import Gatherer
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.layers.layout import as_features, as_rows, width_of
from layerpeel.measurement.statistics.affine_fit import fit_about
from layerpeel.measurement.statistics.covariance import covariance_about
from layerpeel.measurement.statistics.moments import moments_about
from layerpeel.measurement.statistics.patterns import UnitPatterns


@dataclass(frozen=True)
class Settings:
    """What holds for every layer.

    Attributes:
        num_classes: The number of classes :math:`K`.
        maps: A key of ``MAPS``.
        covariance_limit: The largest width whose covariance is accumulated.
    """

    num_classes: int
    maps: str
    covariance_limit: int


class LayerRecorder:
    """Accumulates the statistics of one layer, on the device of its outputs.

    Args:
        kind: The name of the module's type.
        settings: What holds for every layer.
        output: The first output.
        axis: Its axis of features.
        fitted: Whether inputs come too, those of an elementwise nonlinearity.
    """

    def __init__(
        self, kind: str, settings: Settings, output: Tensor, axis: int, *, fitted: bool
    ) -> None:
        self.fitted = fitted
        self._settings = settings
        self.width = width_of(output, axis, settings.maps)
        self._value = LayerStatistics.empty(
            settings.num_classes,
            self.width,
            kind=kind,
            dtype=str(output.dtype).removeprefix("torch."),
            covariance=self.width <= settings.covariance_limit,
            fit=fitted,
        ).to(_home(output).device)
        self._origins: dict[str, Tensor] = {}
        self._units = Gatherer(self._fold_units)
        self._samples = Gatherer(self._fold_samples)
        self._pending: Tensor | None = None
        self.bad = torch.zeros(settings.num_classes, dtype=torch.int64)

    def see(self, inputs: Tensor | None, output: Tensor, axis: int) -> None:
        """Take in the output of one call, and its input where units are fitted.

        Both are reduced or copied at once: later modules may overwrite them.
        """
        maps, y = self._settings.maps, _home(output)
        if inputs is not None:
            x = _home(inputs)
            self._units.add(as_rows(x, axis, maps), as_rows(y, axis, maps))
        self._pending = as_features(y, axis, maps)

    @property
    def rows(self) -> int:
        """The number of rows of the last output: samples, if all is well."""
        return 0 if self._pending is None else len(self._pending)

    def fold(self, labels: Int64[Tensor, " n"]) -> None:
        """Say which classes the samples of the last call are of."""
        features, self._pending = self._pending, None
        if features is None or not len(labels):
            return
        # The extremes tell at a tenth of the cost.
        if not bool(torch.stack(features.aminmax()).isfinite().all()):
            bad = ~features.isfinite().all(1).cpu()
            self.bad += torch.bincount(labels[bad], minlength=len(self.bad))
            features, labels = features[~bad.to(features.device)], labels[~bad]
        self._samples.add(features, labels.to(features.device))

    def value(self) -> LayerStatistics:
        """Return the statistics of all samples so far, on the CPU."""
        self._units.flush()
        self._samples.flush()
        at, value = self._origins, self._value
        if "samples" in at:
            value = value.with_samples(
                value.moments.moved(at["samples"]),
                value.covariance and value.covariance.moved(at["samples"]),
            )
        if value.fit is not None and value.patterns is not None and "inputs" in at:
            fit = value.fit.moved(at["inputs"], at["outputs"])
            value = value.with_units(value.patterns, fit)
        return value.to("cpu")

    def _fold_units(self, inputs: Tensor, outputs: Tensor) -> None:
        value = self._value
        if value.fit is None or value.patterns is None or not len(outputs):
            return
        x, y = self._origin("inputs", inputs), self._origin("outputs", outputs)
        self._value = value.with_units(
            value.patterns.merge(UnitPatterns.of(outputs)),
            value.fit.merge(fit_about(x, y, inputs, outputs)),
        )

    def _fold_samples(self, features: Tensor, labels: Tensor) -> None:
        if not len(labels):
            return
        origin = self._origin("samples", features)
        classes, covariance = self._settings.num_classes, self._value.covariance
        moments = moments_about(origin, features, labels, classes, light=True)
        if covariance is not None:
            covariance = covariance.merge(covariance_about(origin, features))
        self._value = self._value.with_samples(
            self._value.moments.merge(moments), covariance
        )

    def _origin(self, name: str, rows: Tensor) -> Tensor:
        # One origin for all the data: means are merged while they are small, and what
        # is constant is so exactly.
        return self._origins.setdefault(name, rows[0].to(torch.float64))


def _home(values: Tensor) -> Tensor:
    """Return a tensor where statistics of it can be float64: Apple's GPUs have none."""
    values = values.detach()
    return values.cpu() if values.device.type == "mps" else values
