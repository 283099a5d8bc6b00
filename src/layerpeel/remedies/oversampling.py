r"""Oversampling: showing the samples of rare classes more often.

In the peeled problem, repeating every sample of the classes in a group :math:`w_r`
times is exactly the same as having :math:`w_r` times as many of them, so a rate equal
to the imbalance ratio restores the balanced geometry.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices


def oversampled_indices(
    labels: Tensor,
    rates: Sequence[float] | Tensor,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " m"]:
    r"""Repeat the index of each sample as often as the rate of its class says.

    A rate :math:`w` that is no integer is realised sample by sample: :math:`\lfloor w
    \rfloor` repeats, and one more with probability :math:`w - \lfloor w \rfloor`, so
    that the expected number of repeats is exactly :math:`w`.

    Args:
        labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
        rates: The rate :math:`w \geq 1` of each class, with length :math:`K`; 1 leaves
            a class as it is.
        generator: The source of randomness; needed when a rate is no integer.

    Returns:
        Sample indices in increasing order, each repeated. Shuffle them to train.

    Raises:
        ShapeError: If ``rates`` is no list of numbers.
        LabelError: If a label is no class index, or has no rate.
        ValueError: If a rate is below 1 or not finite, or if a rate is no integer and
            there is no generator.

    Example:
        >>> oversampled_indices(torch.tensor([0, 1, 0]), [1, 3]).tolist()
        [0, 1, 1, 1, 2]

        To train with it, hand it to a data loader:

        >>> from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> sampler = SubsetRandomSampler(oversampled_indices(labels, [1, 3]).tolist())
        >>> loader = DataLoader(TensorDataset(torch.eye(4), labels), 6, sampler=sampler)
        >>> next(iter(loader))[1].bincount().tolist()
        [3, 3]
    """
    weights = _checked_rates(rates)
    labels = class_indices(labels, len(weights))
    whole = weights.floor()
    if torch.equal(whole, weights):
        repeats = whole[labels]
    elif generator is None:
        raise ValueError(
            f"Rates that are no integers, {weights.tolist()}, are realised at random: "
            "pass `generator=torch.Generator().manual_seed(seed)`, or round them."
        )
    else:
        chance = torch.rand(len(labels), dtype=torch.float64, generator=generator)
        repeats = whole[labels] + (chance < (weights - whole)[labels])
    return torch.arange(len(labels)).repeat_interleave(repeats.long())


def _checked_rates(rates: Sequence[float] | Tensor) -> Tensor:
    weights = torch.as_tensor(rates, dtype=torch.float64)
    if weights.ndim != 1 or not len(weights):
        raise ShapeError(
            f"`rates` must hold one number per class; got shape {tuple(weights.shape)}."
        )
    if not bool((torch.isfinite(weights) & (weights >= 1)).all()):
        raise ValueError(
            f"`rates` must be finite and >= 1; got {weights.tolist()}. To drop samples "
            "instead, draw a subset."
        )
    return weights
