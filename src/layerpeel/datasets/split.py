"""Splitting data into a training and a test part, class by class."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import LabelError, class_indices


def stratified_split(
    labels: Tensor, test_share: float, generator: torch.Generator
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Split samples at random so that every class has the same share in the test part.

    The share is met to the nearest sample; each class has at least one in either part.

    Args:
        labels: Class indices, with shape :math:`(n,)`.
        test_share: The share of the test part, between 0 and 1.
        generator: The source of randomness.

    Returns:
        The indices of the training part and of the test part, both in increasing order.

    Raises:
        LabelError: If the labels are no class indices, there is none, or a class has a
            single sample.
        ValueError: If ``test_share`` is not between 0 and 1.

    Example:
        >>> labels = torch.arange(2).repeat_interleave(torch.tensor([20, 5]))
        >>> generator = torch.Generator().manual_seed(0)
        >>> train, test = stratified_split(labels, 0.2, generator)
        >>> labels[train].bincount().tolist(), labels[test].bincount().tolist()
        ([16, 4], [4, 1])
    """
    labels = class_indices(labels)
    if not 0 < test_share < 1:
        raise ValueError(f"`test_share` must lie between 0 and 1; got {test_share!r}.")
    if not len(labels):
        raise LabelError("`labels` must hold at least two samples; it is empty.")
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        count = _test_count(label, len(members), test_share)
        test[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def _test_count(label: int, size: int, share: float) -> int:
    if size == 0:
        return 0
    if size == 1:
        raise LabelError(
            f"Every class must have at least two samples, one for each part; class "
            f"{label} has one. Leave it out, or add samples."
        )
    return min(max(round(share * size), 1), size - 1)
