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

# Torch has more types than it computes with: floats of 8 bits can be
# neither added nor compared.
_DTYPES = frozenset(
    {
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    }
)


def as_tensor(values: AnyArray) -> Tensor:
    """Return an array of any framework as a CPU tensor of its own dtype.

    A tensor on the CPU comes back with its memory: see :func:`own_tensor`.

    Raises:
        ValueError: If it holds no real numbers, or is not dense.
    """
    if isinstance(values, Tensor):
        _check_real_and_dense(values)
        return values.detach().cpu()
    array = np.asarray(values)
    # Torch has nothing beyond 64 bits.
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise ValueError(
            f"Arrays must hold real numbers; got {array.dtype}. Convert them, or leave "
            "out what is no number."
        )
    # A copy in native byte order: torch takes neither foreign bytes nor, without a
    # warning, the read-only pages of a memory map.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))


def own_tensor(values: AnyArray) -> Tensor:
    """Return the same in memory of its own: whoever gave it may fill it anew."""
    tensor = as_tensor(values)
    return tensor.clone() if isinstance(values, Tensor) else tensor


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
        # Slices of a tensor stay as they are; what reads on demand may have one buffer.
        read = as_tensor if isinstance(self.features, Tensor) else own_tensor
        starts = range(0, len(self.labels), self.batch_size)
        for start in track(starts, "Measuring features", show=self.progress):
            rows = slice(start, start + self.batch_size)
            yield linear_rows(
                read(self.features[rows]),
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
        ValueError: If a tensor holds no real numbers, or is not dense.
    """
    if isinstance(features, Tensor):
        _check_real_and_dense(features)
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


def _check_real_and_dense(tensor: Tensor) -> None:
    if tensor.layout != torch.strided:
        raise ValueError(
            f"Arrays must be dense; got a tensor with layout {tensor.layout}. Convert "
            "it with `to_dense()`."
        )
    if tensor.dtype not in _DTYPES:
        raise ValueError(
            f"Arrays must hold real numbers of a standard type; got {tensor.dtype}. "
            "Convert them, for instance with `float()`, or leave out what is no number."
        )
