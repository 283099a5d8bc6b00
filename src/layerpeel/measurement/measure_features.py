"""Measure features and weights that come from any framework."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerpeel._checks import at_least
from layerpeel.measurement.assembly import assemble
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.arrays import (
    AnyArray,
    ArrayRows,
    as_tensor,
    checked_labels,
)
from layerpeel.measurement.sources.layer import Layer, checked_layer
from layerpeel.measurement.sources.rows import DecisionCache


def measure_features(
    features: AnyArray,
    labels: AnyArray,
    *,
    weight: AnyArray,
    bias: AnyArray | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    minority: Sequence[int] | None = None,
    eval_features: AnyArray | None = None,
    eval_labels: AnyArray | None = None,
    batch_size: int = 4096,
    progress: bool | None = None,
) -> Measurement:
    """Measure a last layer whose features and weights are given as arrays.

    Arrays may be NumPy arrays, memory maps, tensors, or whatever NumPy reads. They are
    taken slice by slice and converted to float64 a slice at a time; logits are
    :math:`W h + b`.

    Args:
        features: Inputs of the last layer, with shape :math:`(n, d)`.
        labels: Class indices, with shape :math:`(n,)`.
        weight: Classifiers as rows, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`, if the network has one.
        num_classes: Number of classes :math:`K`; the rows of ``weight`` when omitted.
        class_names: Names of the :math:`K` classes.
        minority: Indices of the minority classes; when omitted, the classes are split
            at the widest relative gap between their counts.
        eval_features: Held-out features, for accuracies only.
        eval_labels: Their class indices.
        batch_size: Rows to take at a time.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The measurement; its ``head`` is ``"arrays"``.

    Raises:
        ShapeError: If shapes disagree.
        HeadError: If ``weight`` has another number of rows than there are classes.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        BatchError: If there is no sample.
        NonFiniteError: If features or the head have NaN or infinite values.
        ValueError: If one of ``eval_features`` and ``eval_labels`` is missing.

    Example:
        >>> import numpy as np
        >>> features = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> measurement = measure_features(features, [0, 0, 1, 1], weight=np.eye(2))
        >>> measurement.class_counts, measurement.energy("uncentred")
        ((2, 2), (1.0, 9.5))
    """
    at_least("batch_size", batch_size, 1)
    if (eval_features is None) != (eval_labels is None):
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
    # Nothing is cached: the arrays are there to be read again.
    return assemble(layer, source, DecisionCache(0, refill=True), held_out)


def _rows(
    features: AnyArray,
    labels: AnyArray,
    layer: Layer,
    batch_size: int,
    progress: bool | None,
) -> ArrayRows:
    array = features if hasattr(features, "shape") else as_tensor(features)
    classes, width = layer.weight.shape
    indices = checked_labels(array, labels, width, classes)
    return ArrayRows(array, indices, layer.weight, layer.bias, batch_size, progress)


def _float64(values: AnyArray) -> Tensor:
    return as_tensor(values).to(torch.float64, copy=True)
