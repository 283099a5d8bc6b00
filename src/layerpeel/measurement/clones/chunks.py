r"""Chunks of a layer: random subsets of its neurons, without replacement.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, listed


def draw_chunks(
    width: int, size: int, repeats: int, generator: torch.Generator
) -> Int64[Tensor, "r w"]:
    """Draw chunks uniformly without replacement, each independently of the others.

    Chunks of different repeats overlap, as in the protocol of Doimo et al. (2021). Those
    of :func:`disjoint_chunks` do not.

    Args:
        width: The number of neurons :math:`W` of the layer.
        size: The number of neurons :math:`w` of a chunk.
        repeats: The number of chunks :math:`r`.
        generator: Where randomness comes from.

    Returns:
        Indices of neurons, one chunk a row, with shape :math:`(r, w)`.

    Raises:
        ValueError: If ``size`` is not between 1 and ``width``, or there is no repeat.

    Example:
        >>> chunks = draw_chunks(8, 3, 2, torch.Generator().manual_seed(0))
        >>> chunks.shape, all(len(set(row)) == 3 for row in chunks.tolist())
        (torch.Size([2, 3]), True)
    """
    checked_size(size, width)
    rows = range(at_least("repeats", repeats, 1))
    return torch.stack([draw_permutation(width, generator)[:size] for _ in rows])


def draw_permutation(width: int, generator: torch.Generator) -> Int64[Tensor, " W"]:
    """Draw an order of the neurons, each as likely.

    Args:
        width: The number of neurons :math:`W`.
        generator: Where randomness comes from.

    Raises:
        ValueError: If there is no neuron.
    """
    count = at_least("width", width, 1)
    return torch.randperm(count, generator=generator, device=generator.device).cpu()


def dyadic_sizes(width: int) -> tuple[int, ...]:
    r"""Return the sizes :math:`\lfloor W / 2^i \rfloor \geq 1`, smallest first.

    Args:
        width: The number of neurons :math:`W`.

    Raises:
        ValueError: If there is no neuron.

    Example:
        >>> dyadic_sizes(44)
        (1, 2, 5, 11, 22, 44)
    """
    count = at_least("width", width, 1)
    return tuple(sorted(count >> i for i in range(count.bit_length())))


def disjoint_chunks(
    permutation: Int64[Tensor, " W"], size: int
) -> Int64[Tensor, "m w"]:
    r"""Cut an order of the neurons into chunks that share none.

    Args:
        permutation: An order of the :math:`W` neurons.
        size: The number of neurons :math:`w` of a chunk.

    Returns:
        The :math:`m = \lfloor W / w \rfloor` chunks, one a row; neurons that are too few
        for another chunk are left out.

    Raises:
        ValueError: If ``size`` is not between 1 and :math:`W`.

    Example:
        >>> disjoint_chunks(torch.tensor([4, 0, 2, 1, 3]), 2).tolist()
        [[4, 0], [2, 1]]
    """
    checked_size(size, len(permutation))
    count = len(permutation) // size
    return permutation[: count * size].view(count, size)


def checked_size(size: int, width: int) -> int:
    """Return the size of a chunk if a layer of this width has such chunks.

    Raises:
        ValueError: If it has not.
    """
    if at_least("size", size, 1) > width:
        raise ValueError(
            f"A chunk must have at most the {width} neurons of the layer; got "
            f"{size}. Ask for sizes from 1 to {width}."
        )
    return size


def checked_chunk(chunk: Tensor | Sequence[int], width: int) -> Int64[Tensor, " w"]:
    """Return the indices of a chunk if they are distinct neurons of the layer.

    Args:
        chunk: Indices of neurons, with shape :math:`(w,)`.
        width: The number of neurons :math:`W`.

    Raises:
        ShapeError: If they are no list of at least one index.
        ValueError: If one is no integer, lies outside :math:`[0, W)`, or is repeated.
    """
    indices = torch.as_tensor(chunk).detach().cpu()
    if indices.ndim != 1 or not len(indices):
        raise ShapeError(
            "A chunk must be a list of at least one neuron, with shape (w,); got "
            f"{tuple(indices.shape)}. Pass indices of neurons."
        )
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(
            f"A chunk must be indices of neurons, integers; got {indices.dtype}. "
            "Turn a mask into indices with `mask.nonzero().flatten()`."
        )
    indices = indices.long()
    outside = (indices < 0) | (indices >= width)
    ordered = indices.sort().values
    bad = torch.cat([indices[outside], ordered[1:][ordered.diff() == 0]])
    if len(bad):
        raise ValueError(
            f"A chunk must hold distinct neurons in [0, {width}); got {len(indices)} "
            f"with these repeated or outside: {listed(bad.tolist())}. Remove them."
        )
    return indices
