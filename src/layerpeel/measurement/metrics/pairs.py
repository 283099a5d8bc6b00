r"""Pairs of class vectors, a block of rows at a time: memory is O(K), not O(K^2).

Squared distances come from the Gram matrix, one matrix product for all pairs:
:math:`\|x_i - x_j\|^2 = \|x_i\|^2 + \|x_j\|^2 - 2 \langle x_i, x_j \rangle`. The sum
cancels where two vectors are much closer to each other than to the origin. So they are
centred first, which a distance does not see. Pairs that still cancel are centred once
more, by their own mean: it is near them when they are one cluster, such as a collapsed
minority. What cancels even then is recomputed from differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._tolerances import CANCELLED_SHARE

# Entries of a block, 8 MB, and its rows: enough for a fast product, and so few that the
# half of a diagonal block that is computed in vain is little.
_BLOCK_ENTRIES = 2**20
_BLOCK_ROWS = 256

# Entries gathered at a time where distances come from differences: what a cache holds.
_DIFFERENCE_ENTRIES = 2**17


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Some of the pairs :math:`i < j`.

    Attributes:
        first: The indices :math:`i`, with shape :math:`(m,)`.
        second: The indices :math:`j`, with the same shape.
        values: A number for each pair, with the same shape.
    """

    first: Int64[Tensor, " m"]
    second: Int64[Tensor, " m"]
    values: Float64[Tensor, " m"]


def squared_distances(vectors: Float64[Tensor, "K p"]) -> Iterator[PairBlock]:
    r"""Yield the squared distances of all pairs :math:`i < j`, each once.

    Their relative error is that of differences, a few units of rounding, or at most
    about 1e-12 where they come from the Gram matrix. The time is a little over that of
    half a product ``vectors @ vectors.T``, unless many pairs are far closer to each
    other than to the centre of all that are.

    Args:
        vectors: Finite vectors, one per row, with shape :math:`(K, p)`.

    Example:
        >>> blocks = squared_distances(torch.tensor([[0.0], [2.0], [4.0]]).double())
        >>> [block.values.tolist() for block in blocks]
        [[4.0, 16.0, 4.0]]
    """
    for start, block in distance_blocks(vectors, upper=True):
        yield _above_diagonal(start, block)


def cosines(directions: Float64[Tensor, "K p"]) -> Iterator[PairBlock]:
    r"""Yield the cosines of all pairs :math:`i < j`, each once.

    Args:
        directions: Unit vectors, one per row, with shape :math:`(K, p)`.
    """
    for rows in row_blocks(len(directions)):
        block = directions[rows] @ directions[rows.start :].T
        # Rounding can push a cosine past one by an ulp.
        yield _above_diagonal(rows.start, block.clamp_(-1, 1))


def distance_blocks(
    vectors: Float64[Tensor, "K p"], *, upper: bool = False
) -> Iterator[tuple[int, Float64[Tensor, "m n"]]]:
    """Yield blocks of rows of the matrix of squared distances.

    Args:
        vectors: Finite vectors, one per row, with shape :math:`(K, p)`.
        upper: Whether a block begins at its own first column, rather than at column 0.

    Yields:
        The first row of the block, and the block.
    """
    centred = vectors - vectors.mean(0)
    squares = centred.square().sum(1)
    for rows in row_blocks(len(vectors)):
        columns = slice(rows.start if upper else 0, len(vectors))
        block, cancelled = _gram_distances(centred, squares, rows, columns)
        # A vector's distance to itself is zero, and no rounding.
        own = torch.arange(rows.start, rows.stop)
        block[own - rows.start, own - columns.start] = 0.0
        cancelled[own - rows.start, own - columns.start] = False
        if bool(cancelled.any()):
            _recompute(block, cancelled, vectors[rows], vectors[columns])
        yield rows.start, block


def row_blocks(count: int) -> Iterator[slice]:
    """Yield slices of so many rows that a block of ``count`` columns is affordable."""
    size = max(16, min(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, count)))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def _above_diagonal(start: int, block: Tensor) -> PairBlock:
    i, j = torch.triu_indices(block.shape[0], block.shape[1], offset=1)
    return PairBlock(i + start, j + start, block[i, j])


def _gram_distances(
    centred: Tensor, squares: Tensor, rows: slice, columns: slice
) -> tuple[Tensor, Tensor]:
    """Return squared distances, and which of them cancelled."""
    sizes = squares[rows, None] + squares[None, columns]
    block = torch.addmm(sizes, centred[rows], centred[columns].T, alpha=-2)
    return block, block <= CANCELLED_SHARE * sizes


def _recompute(block: Tensor, cancelled: Tensor, left: Tensor, right: Tensor) -> None:
    """Overwrite what cancelled: about the mean of those, or else from differences."""
    rows = cancelled.any(1).nonzero()[:, 0]
    columns = cancelled.any(0).nonzero()[:, 0]
    near = torch.cat([left[rows], right[columns]])
    near = near - near.mean(0)
    squared, still = _gram_distances(
        near, near.square().sum(1), slice(0, len(rows)), slice(len(rows), len(near))
    )
    wanted = cancelled[rows][:, columns]
    i, j = (still & wanted).nonzero(as_tuple=True)
    squared[i, j] = _from_differences(left, right, rows[i], columns[j])
    block[rows[:, None], columns] = torch.where(
        wanted, squared, block[rows[:, None], columns]
    )


def _from_differences(
    left: Tensor, right: Tensor, first: Tensor, second: Tensor
) -> Tensor:
    rows = max(1, _DIFFERENCE_ENTRIES // max(1, left.shape[1]))
    pieces = zip(torch.split(first, rows), torch.split(second, rows), strict=True)
    return torch.cat(
        [
            left.index_select(0, i).sub_(right.index_select(0, j)).square_().sum(1)
            for i, j in pieces
        ]
    )
