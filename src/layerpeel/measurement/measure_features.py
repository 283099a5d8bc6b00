"""Measure features and weights that come from any framework."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerpeel._checks import at_least
from layerpeel.measurement.assembly import Look, assemble, checked_plan
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.arrays import (
    AnyArray,
    ArrayRows,
    as_tensor,
    checked_labels,
)
from layerpeel.measurement.sources.chunks import ChunkRows
from layerpeel.measurement.sources.layer import Layer, checked_layer
from layerpeel.measurement.sources.rows import DecisionCache


def measure_features(
    features: AnyArray,
    labels: AnyArray | None = None,
    *,
    weight: AnyArray,
    bias: AnyArray | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    minority: Sequence[int] | None = None,
    eval_features: AnyArray | None = None,
    eval_labels: AnyArray | None = None,
    light: bool = False,
    nc4: str = "second_pass",
    batch_size: int = 4096,
    cache_bytes: int = 2**30,
    progress: bool | None = None,
) -> Measurement:
    """Measure a last layer whose features and weights are given as arrays.

    Arrays may be NumPy arrays, memory maps, tensors, or whatever NumPy reads. They are
    taken slice by slice and converted to float64 a slice at a time; logits are
    :math:`W h + b`. Features that no array holds come in chunks, from any iterable.

    A call measures the arrays it is given, also inside a distributed job; what several
    processes have measured is merged by :func:`layerpeel.measurement.merge_measurements`.

    Args:
        features: Inputs of the last layer, with shape :math:`(n, d)`; or, without
            ``labels``, an iterable of pairs ``(features, labels)``. One that can be
            iterated once, such as a generator, must fit into ``cache_bytes`` or go with
            another ``nc4`` than the default.
        labels: Class indices, with shape :math:`(n,)`.
        weight: Classifiers as rows, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`, if the network has one.
        num_classes: Number of classes :math:`K`; the rows of ``weight`` when omitted.
        class_names: Names of the :math:`K` classes.
        minority: Indices of the minority classes; when omitted, the classes are split
            at the widest relative gap between their counts.
        eval_features: Held-out features, for accuracies only; an array or chunks.
        eval_labels: Their class indices.
        light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory, for
            very wide features or very many classes.
        nc4: How to measure NC4: ``"second_pass"``; ``"one_pass"``, against the class
            means of the data seen so far, which is an approximation and reads the
            features once; or ``"skip"``.
        batch_size: Rows to take at a time of an array.
        cache_bytes: How much memory features of an iterable may take, in bytes, where
            it can be read only once.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The measurement; its ``head`` is ``"arrays"``.

    Raises:
        ShapeError: If shapes disagree.
        HeadError: If ``weight`` has another number of rows than there are classes.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        BatchError: If there is no sample, a chunk is no pair, or what can be read once
            does not fit into the cache.
        NonFiniteError: If features or the head have NaN or infinite values.
        ValueError: If one of ``eval_features`` and ``eval_labels`` is missing, or
            ``nc4`` is unknown.

    Example:
        >>> import numpy as np
        >>> features = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> measurement = measure_features(features, [0, 0, 1, 1], weight=np.eye(2))
        >>> measurement.class_counts, measurement.energy("uncentred")
        ((2, 2), (1.0, 9.5))
        >>> chunks = ((features[k : k + 1], [k // 2]) for k in range(4))
        >>> measure_features(chunks, weight=np.eye(2)).class_counts
        (2, 2)
    """
    at_least("batch_size", batch_size, 1)
    at_least("cache_bytes", cache_bytes, 0)
    plan = checked_plan(light, nc4)
    # Chunks hold their labels; an array does not.
    is_array = hasattr(eval_features, "shape")
    alone = eval_features is None and eval_labels is not None
    if alone or (is_array and eval_labels is None):
        raise ValueError("`eval_features` and `eval_labels` belong together; got one.")
    layer = checked_layer(
        "arrays",
        _float64(weight),
        None if bias is None else _float64(bias),
        num_classes,
        class_names,
        minority,
    )
    source = _rows(features, labels, layer, batch_size, progress)
    held_out = (
        None
        if eval_features is None
        else _rows(eval_features, eval_labels, layer, batch_size, progress)
    )
    # What can be read again is not cached.
    repeatable = isinstance(source, ArrayRows) or source.repeatable
    cache = DecisionCache(0 if repeatable else cache_bytes, refill=repeatable)
    return assemble(layer, Look(source, source, cache), held_out, plan)


def _rows(
    features: AnyArray,
    labels: AnyArray | None,
    layer: Layer,
    batch_size: int,
    progress: bool | None,
) -> ArrayRows | ChunkRows:
    if labels is None:
        return ChunkRows(features, layer.weight, layer.bias, progress)
    array = features if hasattr(features, "shape") else as_tensor(features)
    classes, width = layer.weight.shape
    indices = checked_labels(array, labels, width, classes)
    return ArrayRows(array, indices, layer.weight, layer.bias, batch_size, progress)


def _float64(values: AnyArray) -> Tensor:
    return as_tensor(values).to(torch.float64, copy=True)
