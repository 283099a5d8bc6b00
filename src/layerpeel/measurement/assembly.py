"""From a source of rows to a measurement: one pass, and a second look for NC4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import torch

from layerpeel._checks import BatchError, listed, one_of
from layerpeel._warnings import warn
from layerpeel.measurement.distributed.reducer import AbstractReducer, LocalReducer
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.sources.layer import Layer
from layerpeel.measurement.sources.repeat_guard import RepeatGuard
from layerpeel.measurement.sources.rows import DecisionCache, Rows, RowSource
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.row_accumulator import RowAccumulator
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.running_nearest_mean import RunningNearestMean

D = TypeVar("D", Confusion, RightDecisions)

NC4_MODES = MappingProxyType(
    {
        "second_pass": "a second look at the features, against the means of all data",
        "one_pass": "in the first look, against the means of the data seen so far",
        "skip": "not at all",
    }
)
"""How agreement with the nearest class mean is measured, by name."""


class Plan(NamedTuple):
    """What to measure of the rows of a source.

    Attributes:
        light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory.
        nc4: A key of ``NC4_MODES``.
    """

    light: bool = False
    nc4: str = "second_pass"


def checked_plan(light: bool, nc4: str) -> Plan:
    """Return a plan.

    Raises:
        ValueError: If ``nc4`` is unknown.
    """
    return Plan(light, one_of("nc4", nc4, NC4_MODES))


class Look(NamedTuple):
    """Where rows come from, for the first look and for a second one.

    Attributes:
        first: The data, with whatever else is observed on the way.
        again: The data alone.
        cache: Where to keep features for the second look.
        same: Whether data that are read again must bring the same features.
    """

    first: RowSource
    again: RowSource
    cache: DecisionCache
    same: bool = True


def assemble(
    layer: Layer,
    look: Look,
    evaluation: RowSource | None,
    plan: Plan = Plan(),  # noqa: B008 - frozen
    together: AbstractReducer = LocalReducer(),  # noqa: B008 - it has no state
) -> Measurement:
    """Measure a last layer.

    Args:
        layer: The last layer.
        look: The data; of several processes, the share of this one.
        evaluation: Held-out data, if any.
        plan: What to measure.
        together: The processes that measure together.

    Returns:
        The measurement of all data, on the CPU; the same in every process.

    Raises:
        NonFiniteError: If features or logits have NaN or infinite values.
        BatchError: If there is no sample, or a second pass brings other samples or
            features than the first.
        RankError: If another process raised an error.
    """
    with together.errors():
        mine, nearest = first_pass(layer, look.first, look.cache, plan)
    together.warn_of_copies(mine)
    statistics = together.merge(mine)
    warn_of_undefined(statistics.moments, layer.class_names)
    if plan.nc4 == "second_pass":
        # All read again or none: some loaders wait for those of other processes.
        reread = any(together.gathered(not look.cache.complete))
        with together.errors():
            nearest = second_pass(
                statistics.moments,
                (rows.decisions for rows in look.again()) if reread else look.cache,
                expected=mine.moments,
                same=reread and look.same,
            )
    if nearest is not None:
        nearest = together.merge(nearest)
    decisions: Confusion | RightDecisions | None = None
    if evaluation is not None and plan.light:
        decisions = _evaluated(layer, evaluation, RightDecisions, together)
    elif evaluation is not None:
        decisions = _evaluated(layer, evaluation, Confusion, together)
    return measured(layer, statistics, nearest, decisions)


def measured(
    layer: Layer,
    statistics: RowStatistics,
    nearest_mean: NearestMean | None,
    eval_confusion: Confusion | RightDecisions | None,
) -> Measurement:
    """Return a measurement on the CPU from what was accumulated."""
    return Measurement(
        statistics=statistics.to("cpu"),
        nearest_mean=None if nearest_mean is None else nearest_mean.to("cpu"),
        eval_confusion=None if eval_confusion is None else eval_confusion.to("cpu"),
        weight=layer.weight,
        bias=layer.bias,
        head=layer.path,
        class_names=layer.class_names,
        minority=None if layer.minority is None else tuple(layer.minority),
    )


def first_pass(
    layer: Layer, source: RowSource, cache: DecisionCache, plan: Plan
) -> tuple[RowStatistics, NearestMean | None]:
    """Return everything that one look at each sample gives.

    Args:
        layer: The last layer.
        source: The data.
        cache: Where to keep features for a second look, if one is planned.
        plan: What to measure.

    Returns:
        The statistics, and the agreement with running class means if planned.

    Raises:
        NonFiniteError: If features or logits have NaN or infinite values.
        BatchError: If features must be kept and do not fit into the cache.
    """
    statistics = RowAccumulator(*layer.weight.shape, light=plan.light)
    running = RunningNearestMean(*layer.weight.shape)
    for rows in _finite(source(), layer.class_names):
        predictions = statistics.add(*rows)
        decisions = Decisions(rows.features, rows.labels, predictions)
        if plan.nc4 == "second_pass":
            cache.add(decisions)
        elif plan.nc4 == "one_pass":
            running.add(decisions)
    nearest = running.value() if plan.nc4 == "one_pass" else None
    return statistics.value(), nearest


def second_pass(
    moments: ClassMoments,
    decisions: Iterable[Decisions],
    expected: ClassMoments,
    *,
    same: bool = True,
) -> NearestMean:
    """Compare all decisions with the nearest class mean.

    Args:
        moments: Moments whose class means to compare with.
        decisions: The decisions of the first pass, kept or made again.
        expected: Moments of the data of this process; ``moments`` also describe those
            of others.
        same: Whether to compare the features, too, with those of the first pass.

    Returns:
        The agreement.

    Raises:
        BatchError: If these are other samples than in the first pass.
    """
    guard = RepeatGuard(expected)
    nearest = NearestMean.of(guard.watched(decisions) if same else decisions, moments)
    if not torch.equal(nearest.count, expected.count.long()):
        raise BatchError(
            "A second pass over the data must bring the same samples as the first; of "
            f"{expected.num_samples} samples it brought {int(nearest.count.sum())}, or "
            "other classes. Pass a loader that does not draw anew, such as one without "
            "a random sampler, a `cache_bytes` that holds all features, or "
            "`nc4='one_pass'`."
        )
    if same:
        guard.check()
    return nearest


def _evaluated(
    layer: Layer, source: RowSource, kind: type[D], together: AbstractReducer
) -> D:
    """Return the decisions on held-out data."""
    counts = kind.empty(len(layer.weight))
    with together.errors():
        for rows in _finite(source(), layer.class_names):
            counts = counts.to(rows.labels.device)
            counts.add_(rows.labels, rows.decisions.predictions)
    return together.merge(counts)


def warn_of_undefined(moments: ClassMoments, class_names: Sequence[str]) -> None:
    """Warn of classes without samples, and where each has but one."""
    counts = [int(n) for n in moments.count]
    absent = [class_names[k] for k, n in enumerate(counts) if not n]
    if absent:
        warn(
            f"{len(absent)} of {len(counts)} classes have no samples, and what needs "
            f"their features is undefined (NaN): {listed(absent)}."
        )
    if max(counts) == 1:
        warn(
            "Every class has one sample: variability within classes is undefined, and "
            "NC1 = 0 and NC4 say nothing about the network."
        )


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
