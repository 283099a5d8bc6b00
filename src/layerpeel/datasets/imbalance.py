r"""Imbalanced subsets of balanced data, drawn by a seeded generator.

References:
    | Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss
    | (Cao et al., 2019), https://arxiv.org/abs/1906.07413: step and long-tailed sizes
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: step
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import LabelError, at_least, class_indices, listed


def step_imbalance(
    labels: Tensor, minority: Sequence[int], count: int, generator: torch.Generator
) -> Int64[Tensor, " m"]:
    """Keep a few samples of some classes and all samples of the others.

    Args:
        labels: Class indices, with shape :math:`(n,)`.
        minority: The classes to thin out.
        count: How many samples of each of them to keep, at least 1.
        generator: The source of randomness.

    Returns:
        Indices of the samples kept, in increasing order.

    Raises:
        LabelError: If the labels are no class indices, a class is named twice, or one
            has fewer than ``count`` samples.
        ValueError: If ``count`` is below 1 or no class is named.

    Example:
        >>> labels = torch.arange(3).repeat(10)
        >>> kept = step_imbalance(labels, [2], 4, torch.Generator().manual_seed(0))
        >>> labels[kept].bincount().tolist()
        [10, 10, 4]
    """
    labels = class_indices(labels)
    at_least("count", count, 1)
    at_least("the number of minority classes", len(minority), 1)
    if len(set(minority)) < len(minority):
        raise LabelError(f"`minority` must name each class once; got {list(minority)}.")
    sizes = _class_sizes(labels)
    wanted = dict(enumerate(sizes)) | dict.fromkeys(minority, count)
    return _draw(labels, wanted, generator)


def exponential_imbalance(
    labels: Tensor, ratio: float, generator: torch.Generator
) -> Int64[Tensor, " m"]:
    r"""Thin out all classes along an exponential long tail.

    .. math::
        n_k = n_0 \, R^{-k / (K - 1)}, \qquad k = 0, \dots, K - 1 ,

    to the nearest integer, so that class 0 is the head and class :math:`K - 1` the
    tail. The head :math:`n_0` is the largest for which every class has enough samples:
    the whole of class 0 when the data are balanced.

    Args:
        labels: Class indices, with shape :math:`(n,)`; every class up to the largest
            index occurs.
        ratio: The size of the head over that of the tail, :math:`R \geq 1`.
        generator: The source of randomness.

    Returns:
        Indices of the samples kept, in increasing order.

    Raises:
        LabelError: If the labels are no class indices, or a class does not occur.
        ValueError: If there are fewer than 2 classes, or if ``ratio`` is below 1 or so
            large that the tail would be empty.

    Example:
        >>> labels = torch.arange(3).repeat(100)
        >>> kept = exponential_imbalance(labels, 100, torch.Generator().manual_seed(0))
        >>> labels[kept].bincount().tolist()
        [100, 10, 1]
    """
    labels = class_indices(labels)
    sizes = _class_sizes(labels)
    classes = at_least("the number of classes", len(sizes), 2)
    if not 1 <= ratio < float("inf"):
        raise ValueError(f"`ratio` must be a finite number >= 1; got {ratio!r}.")
    if empty := [k for k, size in enumerate(sizes) if size == 0]:
        raise LabelError(
            f"Every class must occur; no sample has label {listed(empty)}."
        )
    share = [ratio ** (-k / (classes - 1)) for k in range(classes)]
    head = min(size / part for size, part in zip(sizes, share, strict=True))
    wanted = {k: round(head * part) for k, part in enumerate(share)}
    if wanted[classes - 1] == 0:
        raise ValueError(
            f"`ratio` must leave the last class at least one sample; got {ratio!r} "
            f"for {round(head)} samples in the first. Choose it below {2 * head:.0f}."
        )
    return _draw(labels, wanted, generator)


def _class_sizes(labels: Tensor) -> list[int]:
    return [int(size) for size in labels.bincount()]


def _draw(
    labels: Tensor, wanted: dict[int, int], generator: torch.Generator
) -> Int64[Tensor, " m"]:
    """Draw without replacement as many samples of each class as wanted, sorted."""
    kept = []
    for label, count in wanted.items():
        members = (labels == label).nonzero().flatten()
        if len(members) < count:
            raise LabelError(
                f"Class {label} must have at least {count} samples to keep {count}; "
                f"it has {len(members)}. Keep fewer."
            )
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values
