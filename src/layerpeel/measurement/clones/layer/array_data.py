"""A layer whose features are given as an array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import (
    BatchError,
    HeadError,
    ShapeError,
    at_least,
    class_indices,
)
from layerpeel._progress import track
from layerpeel.measurement.clones.layer.layer_data import (
    HEAD_INPUT,
    Consumer,
    Edit,
    LayerData,
    Samples,
    check_finite_consumer,
    classes_of,
    refuse_non_finite,
)
from layerpeel.measurement.sources.arrays import AnyArray, as_tensor, own_tensor


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Slices of an array, read again each time.

    Attributes:
        features: An array or tensor with shape :math:`(n, W)`; only slices are read.
        labels: Class indices, with shape :math:`(n,)`.
        batch_size: Rows to take at a time.
        progress: Whether to show a progress bar; on a terminal when omitted.
    """

    features: AnyArray
    labels: Int64[Tensor, " n"]
    batch_size: int
    progress: bool | None

    def samples(self) -> Iterator[Samples]:
        """Yield features and labels, slice by slice."""
        # Slices of a tensor stay as they are; what reads on demand may have one buffer.
        read = as_tensor if isinstance(self.features, Tensor) else own_tensor
        starts = range(0, len(self.labels), self.batch_size)
        for start in track(starts, "Reading features", show=self.progress):
            rows = slice(start, start + self.batch_size)
            values = read(self.features[rows])
            exact = values if values.is_floating_point() else values.to(torch.float64)
            yield Samples(exact, self.labels[rows])

    def logits(self, edit: Edit) -> Iterator[tuple[Tensor, Tensor]]:
        """Say that an array is no network."""
        raise ValueError("Arrays without `weight` have no logits. Pass `weight`.")


def array_data(
    features: AnyArray,
    labels: AnyArray | None,
    *,
    weight: AnyArray | None,
    bias: AnyArray | None = None,
    num_classes: int | None = None,
    batch_size: int = 4096,
    progress: bool | None = None,
    name: str = "features",
) -> LayerData:
    """Return a layer whose features and weights were extracted elsewhere.

    Args:
        features: Of the layer, with shape :math:`(n, W)`: a NumPy array, memory map,
            tensor, or whatever NumPy reads. Only slices are read.
        labels: Class indices, with shape :math:`(n,)`; without them no errors can be
            counted, only reconstruction.
        weight: That of the last linear layer, with shape :math:`(K, W)`, or ``None``.
        bias: Its bias, with shape :math:`(K,)`, if it has one.
        num_classes: The number of classes :math:`K`; the rows of ``weight`` when
            omitted, else as many as labels name.
        batch_size: Rows to take at a time.
        progress: Whether to show a progress bar; on a terminal when omitted.
        name: What the caller calls the features, for messages.

    Raises:
        ShapeError: If shapes disagree.
        HeadError: If ``weight`` has another number of rows than there are classes.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        BatchError: If there is no sample.
        NonFiniteError: If features or weights have NaN or infinite values.
        ValueError: If there is a bias without a weight.

    Example:
        >>> import numpy as np
        >>> h = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
        >>> data = array_data(h, [0, 1, 0], weight=np.eye(2))
        >>> data.width, data.count, data.wrong(), data.wrong(torch.zeros_like)
        (2, 3, 1, 1)
    """
    at_least("batch_size", batch_size, 1)
    array = features if hasattr(features, "shape") else as_tensor(features)
    consumer = _consumer(weight, bias)
    _check_shape(array, consumer, name)
    known = None if labels is None else class_indices(as_tensor(labels))
    classes = _classes(consumer, num_classes, known)
    source = ArraySource(array, _indices(known, array, classes), batch_size, progress)
    for _ in refuse_non_finite(source.samples(), classes):
        pass
    return LayerData(
        HEAD_INPUT,
        array.shape[1],
        _eps(array),
        consumer,
        "" if consumer else "no `weight` was given",
        consumer is not None,
        classes,
        len(source.labels),
        name,
        known is not None,
        source,
    )


def _consumer(weight: AnyArray | None, bias: AnyArray | None) -> Consumer | None:
    if weight is None:
        if bias is not None:
            raise ValueError("`bias` belongs to `weight`; got a bias alone.")
        return None
    v = as_tensor(weight).to(torch.float64, copy=True)
    if v.ndim != 2:
        raise ShapeError(
            f"`weight` must have shape (K, W), one row per class; got {tuple(v.shape)}."
        )
    b = v.new_zeros(len(v)) if bias is None else as_tensor(bias).to(v, copy=True)
    if tuple(b.shape) != (len(v),):
        raise ShapeError(
            f"`bias` must have shape ({len(v)},), one entry per row of `weight`; got "
            f"{tuple(b.shape)}."
        )
    consumer = Consumer("arrays", v, b)
    check_finite_consumer(consumer)
    return consumer


def _check_shape(array: AnyArray, consumer: Consumer | None, name: str) -> None:
    shape = tuple(array.shape)
    wanted = "W" if consumer is None else str(consumer.weight.shape[1])
    fits = len(shape) == 2 and wanted in ("W", str(shape[1]))
    if not fits or not shape[1]:
        raise ShapeError(
            f"`{name}` must have shape (n, {wanted}), one row per sample and one column "
            f"per neuron; got {shape}."
        )
    if not shape[0]:
        raise BatchError(f"`{name}` must hold at least one sample; it is empty.")


def _classes(
    consumer: Consumer | None, stated: int | None, labels: Tensor | None
) -> int:
    if stated is not None:
        at_least("num_classes", stated, 1)
    if consumer is None:
        named = 0 if labels is None or not len(labels) else int(labels.max()) + 1
        return named if stated is None else stated
    classes = classes_of(len(consumer.weight))
    if stated not in (None, classes):
        raise HeadError(
            f"`weight` must have one row per class; it tells {classes} classes apart, "
            f"and `num_classes` is {stated}. Leave one of them out, or correct it."
        )
    return classes


def _indices(
    labels: Tensor | None, array: AnyArray, classes: int
) -> Int64[Tensor, " n"]:
    if labels is None:
        return torch.zeros(array.shape[0], dtype=torch.int64)
    if len(labels) != array.shape[0]:
        raise ShapeError(
            f"`labels` must have shape ({array.shape[0]},) to match the features; got "
            f"({len(labels)},)."
        )
    return class_indices(labels, classes).cpu()


def _eps(array: AnyArray) -> float:
    """Return that of the dtype; whole numbers are exact, and computed with in float64."""
    kind = array.dtype if isinstance(array, Tensor) else as_tensor(array[:0]).dtype
    return float(torch.finfo(kind if kind.is_floating_point else torch.float64).eps)
