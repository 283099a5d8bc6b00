"""From a source of rows to a measurement: one pass, and a second look for NC4."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from layerpeel._checks import BatchError, UndefinedWarning, listed
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.classes import grouped_classes
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.sources.layer import Layer
from layerpeel.measurement.sources.rows import DecisionCache, Rows, RowSource
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.sample import SampleCollector
from layerpeel.measurement.statistics.units import UnitRange


def assemble(
    layer: Layer, source: RowSource, cache: DecisionCache, evaluation: RowSource | None
) -> Measurement:
    """Measure a last layer.

    Args:
        layer: The last layer.
        source: The data.
        cache: Where to keep features for the second look.
        evaluation: Held-out data, if any.

    Returns:
        The measurement.

    Raises:
        NonFiniteError: If features or logits have NaN or infinite values.
        BatchError: If a second pass brings other samples than the first.
    """
    first = _FirstPass(*layer.weight.shape)
    for rows in _finite(source(), layer.class_names):
        cache.add(rows)
        first.add(rows)
    moments = first.moments.value()
    counts = [int(n) for n in moments.count]
    _warn_of_undefined(counts, layer.class_names)
    return Measurement(
        moments=moments,
        weight=layer.weight,
        bias=layer.bias,
        confusion=first.confusion,
        eval_confusion=_evaluated(layer, evaluation),
        nearest_mean=_nearest_mean(moments, source, cache),
        loss=first.loss / sum(counts),
        units=first.units,
        sample=first.sample.value(),
        head=layer.path,
        class_names=layer.class_names,
        groups=grouped_classes(layer.minority, counts),
    )


class _FirstPass:
    """Everything that one look at each sample gives."""

    def __init__(self, num_classes: int, width: int) -> None:
        self.moments = MomentsAccumulator(num_classes, width)
        self.confusion = Confusion.empty(num_classes)
        self.units = UnitRange.empty(width)
        self.sample = SampleCollector(num_classes, width)
        self.loss = 0.0

    def add(self, rows: Rows) -> None:
        self.moments.add(rows.features, rows.labels)
        self.confusion.add_(rows.labels, rows.decisions.predictions)
        self.units = self.units.merge(UnitRange.of(rows.features))
        self.sample.add(rows.features, rows.labels)
        logits = rows.logits.to(torch.float64)
        self.loss += float(cross_entropy(logits, rows.labels, reduction="sum"))


def _finite(rows: Iterable[Rows], class_names: Sequence[str]) -> Iterator[Rows]:
    """Yield rows with finite values only; raise after the last if there were others."""
    guards = [FiniteGuard(what, len(class_names)) for what in ("features", "logits")]
    for part in rows:
        bad = guards[0].bad_rows(part.features, part.labels)
        bad |= guards[1].bad_rows(part.logits, part.labels)
        if not bool(bad.any()):
            yield part
        elif not bool(bad.all()):
            yield Rows(*(values[~bad] for values in part))
    for guard in guards:
        guard.check(class_names)


def _evaluated(layer: Layer, source: RowSource | None) -> Confusion | None:
    if source is None:
        return None
    confusion = Confusion.empty(len(layer.weight))
    for rows in _finite(source(), layer.class_names):
        confusion.add_(rows.labels, rows.decisions.predictions)
    return confusion


def _nearest_mean(
    moments: ClassMoments, source: RowSource, cache: DecisionCache
) -> NearestMean:
    if cache.complete:
        return NearestMean.of(cache, moments)
    nearest = NearestMean.of((rows.decisions for rows in source()), moments)
    if not torch.equal(nearest.count, moments.count.long()):
        raise BatchError(
            "A second pass over the data must bring the same samples as the first; of "
            f"{moments.num_samples} samples it brought {int(nearest.count.sum())}, or "
            "other classes. Pass a loader that does not draw anew, such as one without "
            "a random sampler, or a `cache_bytes` that holds all features."
        )
    return nearest


def _warn_of_undefined(counts: Sequence[int], class_names: Sequence[str]) -> None:
    absent = [class_names[k] for k, n in enumerate(counts) if not n]
    if absent:
        _warn(
            f"{len(absent)} of {len(counts)} classes have no samples, and what needs "
            f"their features is undefined (NaN): {listed(absent)}."
        )
    if max(counts) == 1:
        _warn(
            "Every class has one sample: variability within classes is undefined, and "
            "NC1 = 0 and NC4 say nothing about the network."
        )


def _warn(message: str) -> None:
    # Four frames up is the caller of `measure`.
    warnings.warn(message, UndefinedWarning, stacklevel=5)
