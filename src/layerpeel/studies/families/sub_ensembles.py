"""Ensembles of networks: their logits are summed, and the largest sum decides.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, class_indices
from layerpeel.measurement.clones.errors.chunk_errors import wrong_decisions


def draw_subsets(
    count: int, members: int, repeats: int, generator: torch.Generator
) -> Int64[Tensor, "r k"]:
    """Draw ensembles of some networks, each without replacement.

    Args:
        count: The number of networks there are.
        members: The number :math:`k` of an ensemble.
        repeats: The number of ensembles to draw.
        generator: Where randomness comes from; left alone where nothing is drawn.

    Returns:
        Indices of networks, one ensemble a row. Where there are no more than ``repeats``
        different ensembles, each of them once, in the order of their members.

    Raises:
        ValueError: If there are fewer networks than members, or nothing is to be drawn.

    Example:
        >>> draw_subsets(3, 2, 10, torch.Generator().manual_seed(0)).tolist()
        [[0, 1], [0, 2], [1, 2]]
        >>> draw_subsets(30, 2, 10, torch.Generator().manual_seed(0)).shape
        torch.Size([10, 2])
    """
    at_least("repeats", repeats, 1)
    if at_least("members", members, 1) > count:
        raise ValueError(
            f"An ensemble of {members} networks needs as many; got {count}. Train more "
            "seeds, or ask for fewer members."
        )
    if math.comb(count, members) <= repeats:
        return torch.tensor(list(combinations(range(count), members)))
    drawn = [
        torch.randperm(count, generator=generator, device=generator.device)[:members]
        for _ in range(repeats)
    ]
    return torch.stack(drawn).cpu()


def ensemble_errors(
    logits: Tensor, labels: Tensor, subsets: Int64[Tensor, "r k"]
) -> Float64[Tensor, " r"]:
    """Return the share of samples that each ensemble gets wrong.

    Decisions are those of ``argmax`` of the sum; with a single logit, the class is its
    sign, and zero is an error.

    Args:
        logits: Of all networks on the same samples, with shape :math:`(s, n, K)`.
        labels: Class indices, with shape :math:`(n,)`.
        subsets: The members of each ensemble, as :func:`draw_subsets` returns them.

    Returns:
        Errors, with shape :math:`(r,)`; NaN without samples.

    Raises:
        ShapeError: If the shapes disagree.
        LabelError: If a label is no class index.

    Example:
        >>> logits = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
        >>> both = torch.tensor([[0, 1], [1, 2]])
        >>> ensemble_errors(logits, torch.tensor([0]), both).tolist()
        [0.0, 1.0]
    """
    return wrong_of_sums(logits, labels, subsets).double() / len(labels)


def wrong_of_sums(
    logits: Tensor, labels: Tensor, subsets: Int64[Tensor, "r k"]
) -> Int64[Tensor, " r"]:
    """Count the samples that each ensemble gets wrong; counts of batches add up.

    Args:
        logits: Of all networks on the same samples, with shape :math:`(s, n, K)`.
        labels: Class indices, with shape :math:`(n,)`.
        subsets: The members of each ensemble, with shape :math:`(r, k)`.

    Raises:
        ShapeError: If the shapes disagree.
        LabelError: If a label is no class index.
    """
    if logits.ndim != 3 or logits.shape[1] != len(labels):
        raise ShapeError(
            f"`logits` must have shape (s, {len(labels)}, K), one row for each label; "
            f"got {tuple(logits.shape)}."
        )
    y = class_indices(labels, max(logits.shape[2], 2)).cpu()
    order = y.argsort(stable=True)
    z = logits.detach().to("cpu", torch.float64)[:, order].transpose(1, 2)
    # One after another: all members of all ensembles at once are many times the logits.
    wrong = [wrong_decisions(z[s].sum(0, keepdim=True), y[order]) for s in subsets]
    return torch.cat(wrong)
