"""A minimal loader: arrays in memory, cut into batches in their own order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, class_indices

Batch = tuple[Tensor, Tensor] | dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ArrayLoader:
    r"""Batches of arrays in memory, in a fixed order, as often as they are asked for.

    For measuring, where the order does not matter and shuffling would only cost
    reproducibility. Train with a :class:`torch.utils.data.DataLoader`.

    Args:
        inputs: Samples along the first axis, with shape :math:`(n, \dots)`; or several
            such arrays by name, as models of Hugging Face take them.
        labels: Class indices, with shape :math:`(n,)`.
        batch_size: The number of samples per batch; the last one may be smaller.
        indices: Which samples, in which order, repeats allowed; all when omitted.

    Attributes:
        num_samples: The number of samples that one pass yields.

    Raises:
        ShapeError: If the numbers of samples differ.
        LabelError: If the labels are no class indices.
        ValueError: If ``batch_size`` is below 1, or there is no sample.
        IndexError: If an index is not that of a sample.

    Example:
        >>> loader = ArrayLoader(torch.eye(3), torch.tensor([0, 1, 2]), batch_size=2)
        >>> [labels.tolist() for _, labels in loader]
        [[0, 1], [2]]
        >>> len(loader)
        2
    """

    inputs: Tensor | Mapping[str, Tensor]
    labels: Tensor
    batch_size: int
    indices: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", class_indices(self.labels))
        at_least("batch_size", self.batch_size, 1)
        for name, array in self._named_inputs().items():
            _check_length(name, array, len(self.labels))
        if self.indices is not None:
            _check_indices(self.indices, len(self.labels))
        at_least("the number of samples", self.num_samples, 1)

    @property
    def num_samples(self) -> int:
        """The number of samples that one pass yields."""
        return len(self.labels) if self.indices is None else len(self.indices)

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``(inputs, labels)``; a dict with ``labels`` for named inputs."""
        order = torch.arange(self.num_samples) if self.indices is None else self.indices
        for chosen in torch.split(order, self.batch_size):
            if isinstance(self.inputs, Tensor):
                yield self.inputs[chosen], self.labels[chosen]
            else:
                named = {**self.inputs, "labels": self.labels}
                yield {name: array[chosen] for name, array in named.items()}

    def _named_inputs(self) -> Mapping[str, Tensor]:
        return (
            {"inputs": self.inputs} if isinstance(self.inputs, Tensor) else self.inputs
        )


def _check_length(name: str, array: Tensor, num_labels: int) -> None:
    if array.ndim == 0 or len(array) != num_labels:
        raise ShapeError(
            f"`{name}` must have one sample per label, {num_labels} along the first "
            f"axis; got shape {tuple(array.shape)}."
        )


def _check_indices(indices: Tensor, num_samples: int) -> None:
    if indices.ndim != 1 or indices.dtype != torch.int64:
        raise ShapeError(
            "`indices` must be int64 with shape (m,); got "
            f"{indices.dtype} with shape {tuple(indices.shape)}."
        )
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < num_samples:
        raise IndexError(
            f"`indices` must lie in [0, {num_samples}); got values from "
            f"{int(indices.min())} to {int(indices.max())}."
        )
