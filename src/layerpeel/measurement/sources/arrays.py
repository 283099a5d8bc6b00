"""Features that were extracted elsewhere, as a source of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import BatchError, ShapeError, class_indices
from layerpeel._progress import track
from layerpeel.measurement.sources.rows import Rows

# Whatever has a shape and slices that NumPy reads; there is no common base class.
AnyArray: TypeAlias = Any


def as_tensor(values: AnyArray) -> Tensor:
    """Return an array of any framework as a CPU tensor of its own dtype."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"Arrays must hold real numbers; got {array.dtype}. Convert them, or leave "
            "out what is no number."
        )
    # A copy in native byte order: torch takes neither foreign bytes nor, without a
    # warning, the read-only pages of a memory map.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """A source of rows: slices of arrays, with logits computed in float64.

    Attributes:
        features: An array or tensor with shape :math:`(n, d)`; only slices are read.
        labels: Class indices, with shape :math:`(n,)`.
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`, or ``None``.
        batch_size: Rows to take at a time.
        progress: Whether to show a progress bar; on a terminal when omitted.
    """

    features: AnyArray
    labels: Int64[Tensor, " n"]
    weight: Float64[Tensor, "K d"]
    bias: Float64[Tensor, " K"] | None
    batch_size: int
    progress: bool | None = None

    def __call__(self) -> Iterator[Rows]:
        """Yield features, labels and logits, slice by slice."""
        starts = range(0, len(self.labels), self.batch_size)
        for start in track(starts, "Measuring features", show=self.progress):
            rows = slice(start, start + self.batch_size)
            yield linear_rows(
                as_tensor(self.features[rows]),
                self.labels[rows],
                self.weight,
                self.bias,
            )


def linear_rows(
    features: Tensor,
    labels: Int64[Tensor, " n"],
    weight: Float64[Tensor, "K d"],
    bias: Float64[Tensor, " K"] | None,
) -> Rows:
    """Return rows with logits computed in float64; integers become features too."""
    if not features.is_floating_point():
        features = features.to(torch.float64)
    logits = features.to(torch.float64) @ weight.T
    return Rows(features, labels, logits if bias is None else logits + bias)


def checked_labels(
    features: AnyArray,
    labels: AnyArray,
    width: int,
    num_classes: int,
) -> Int64[Tensor, " n"]:
    """Return labels as indices, if they and the features belong together.

    Raises:
        ShapeError: If features are not :math:`(n, d)` or labels not :math:`(n,)`.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        BatchError: If there is no sample.
    """
    shape = tuple(features.shape)
    if len(shape) != 2 or shape[1] != width:
        raise ShapeError(
            f"`features` must have shape (n, {width}), one row per sample and as many "
            f"columns as `weight`; got {shape}. Classifiers are the rows of `weight`: "
            "pass `weight.T` if they are its columns, as in Keras."
        )
    indices = class_indices(as_tensor(labels), num_classes)
    if len(indices) != shape[0]:
        raise ShapeError(
            f"`labels` must have shape ({shape[0]},) to match `features`; got "
            f"({len(indices)},)."
        )
    if not len(indices):
        raise BatchError("`features` must hold at least one sample; they are empty.")
    return indices
