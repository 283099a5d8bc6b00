r"""Pairs of class vectors, a block of rows at a time: memory is O(K), not O(K^2).

Squared distances come from the Gram matrix, one matrix product for all pairs:
:math:`\|x_i - x_j\|^2 = \|x_i\|^2 + \|x_j\|^2 - 2 \langle x_i, x_j \rangle`. The sum
cancels where two vectors are much closer to each other than to the origin. So they are
centred first, which a distance does not see. Pairs that still cancel are those inside
of clusters, such as a collapsed minority: each cluster is centred once more, about one
of its vectors, and once more where it has clusters of its own. Clusters too small for
that are recomputed from differences.
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

# A vector with fewer others near it is not worth centring them about it.
_LEAST_CLUSTER = 8

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
    half a product ``vectors @ vectors.T``, and clusters of vectors that are far closer
    to each other than to all others add to it what is half a product of their own.

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
    squares = _squares(centred)
    for rows in row_blocks(len(vectors)):
        columns = slice(rows.start if upper else 0, len(vectors))
        block, cancelled = _gram_distances(
            centred[rows], centred[columns], squares[rows], squares[columns]
        )
        # A vector's distance to itself is zero, and no rounding.
        own = torch.arange(rows.start, rows.stop)
        block[own - rows.start, own - columns.start] = 0.0
        cancelled[own - rows.start, own - columns.start] = False
        if bool(cancelled.any()):
            _recompute(block, cancelled, vectors[columns], rows.start - columns.start)
        yield rows.start, block


def row_blocks(count: int) -> Iterator[slice]:
    """Yield slices of so many rows that a block of ``count`` columns is affordable."""
    size = max(16, min(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, count)))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def _above_diagonal(start: int, block: Tensor) -> PairBlock:
    i, j = torch.triu_indices(block.shape[0], block.shape[1], offset=1)
    values = block.flatten().index_select(0, i * block.shape[1] + j)
    return PairBlock(i + start, j + start, values)


def _squares(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths.square_()


def _gram_distances(
    left: Tensor, right: Tensor, left_squares: Tensor, right_squares: Tensor
) -> tuple[Tensor, Tensor]:
    """Return squared distances, and which of them cancelled."""
    sizes = left_squares[:, None] + right_squares
    block = torch.addmm(sizes, left, right.T, alpha=-2)
    # Vectors that are zero, both, are at zero distance: nothing has cancelled.
    return block, block < sizes.mul_(CANCELLED_SHARE)


def _recompute(block: Tensor, cancelled: Tensor, vectors: Tensor, shift: int) -> None:
    """Overwrite what cancelled: about one of each cluster, or else from differences.

    Args:
        block: Squared distances, with shape :math:`(m, n)`.
        cancelled: Which of them to overwrite, with the same shape; overwritten too.
        vectors: Those of the columns, with shape :math:`(n, p)`.
        shift: The column of the first row's own vector.
    """
    crowded = cancelled.sum(1) >= _LEAST_CLUSTER
    while bool(crowded.any()):
        row = int(crowded.to(torch.uint8).argmax())
        rows = _recentre(block, cancelled, vectors, shift, row)
        crowded[rows] &= cancelled[rows].sum(1) >= _LEAST_CLUSTER
        crowded[row] = False
    i, j = cancelled.nonzero(as_tuple=True)
    if len(i):
        block[i, j] = _from_differences(vectors, i + shift, j)


def _recentre(
    block: Tensor, cancelled: Tensor, vectors: Tensor, shift: int, row: int
) -> Tensor:
    """Overwrite what cancelled among all that are near a row; return these rows."""
    own = torch.arange(len(vectors)) == row + shift
    columns = (cancelled[row] | own).nonzero()[:, 0]
    near = vectors.index_select(0, columns).sub_(vectors[row + shift])
    here = slice(
        *torch.searchsorted(columns, torch.tensor([shift, shift + len(block)]))
    )
    rows, squares = columns[here] - shift, _squares(near)
    squared, still = _gram_distances(near[here], near, squares[here], squares)
    where = (rows[:, None], columns)
    wanted = cancelled[where]
    block[where] = torch.where(wanted, squared, block[where])
    cancelled[where] = wanted & still
    return rows


def _from_differences(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    rows = max(1, _DIFFERENCE_ENTRIES // max(1, vectors.shape[1]))
    pieces = zip(torch.split(first, rows), torch.split(second, rows), strict=True)
    return torch.cat(
        [
            _squares(vectors.index_select(0, i).sub_(vectors.index_select(0, j)))
            for i, j in pieces
        ]
    )
