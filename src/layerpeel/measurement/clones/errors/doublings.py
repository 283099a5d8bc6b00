r"""Sums over all disjoint chunks of all dyadic sizes, in the order that is fast to add.

Chunks of one size are stored so that their halves are two blocks, one after the other:
a size is then one addition of contiguous numbers. Where a size is odd its chunks have no
halves, and a new run of sizes begins from the neurons.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


class Level(NamedTuple):
    """Where the chunks of a size are stored.

    Attributes:
        size: The number of neurons of each.
        start: The row of the first.
        chunks: The number of them.
        order: Which chunk each row is, with shape :math:`(m,)`.
        neurons: The neurons of each row, with shape :math:`(m, w)`, where a run
            begins; otherwise ``None``, and rows are sums of rows of the level before.
    """

    size: int
    start: int
    chunks: int
    order: Int64[Tensor, " m"]
    neurons: Int64[Tensor, "m w"] | None


class ChunkSums(NamedTuple):
    """Numbers of each chunk and sample, and how they follow from one another.

    Attributes:
        values: With shape :math:`(rows, n)`.
        runs: Parts of it that runs of sizes begin with.
        halves: Parts of it, and those that they are the sums of, in order.
    """

    values: Float64[Tensor, "rows n"]
    runs: list[Tensor]
    halves: list[tuple[Tensor, Tensor, Tensor]]

    def fill(self, weights: list[Tensor], features: list[Tensor]) -> None:
        """Write the products of weights and features, summed over each chunk.

        Args:
            weights: Those that each run of sizes begins with, shapes :math:`(m, 1, w)`.
            features: The same, with shapes :math:`(m, w, n)`.
        """
        for v, h, out in zip(weights, features, self.runs, strict=True):
            if v.shape[2] == 1:
                torch.mul(v, h, out=out)
            else:
                torch.bmm(v, h, out=out)
        for a, b, out in self.halves:
            torch.add(a, b, out=out)


class Doublings:
    """The chunks of an order of neurons, a row for each.

    Args:
        permutation: An order of the :math:`W` neurons.
        sizes: Rising.

    Attributes:
        levels: One for each size.
        rows: How many chunks there are.
    """

    def __init__(
        self, permutation: Int64[Tensor, " W"], sizes: tuple[int, ...]
    ) -> None:
        width = len(permutation)
        orders = _orders(width, sizes)
        self.levels: list[Level] = []
        self.rows = 0
        for i, size in enumerate(sizes):
            count = width // size
            neurons = None
            if not _doubles(sizes, i):
                used = permutation[: count * size]
                neurons = used.view(count, size)[orders[i]]
            self.levels.append(Level(size, self.rows, count, orders[i], neurons))
            self.rows += count

    def gathered(self, columns: Float64[Tensor, "W n"]) -> list[Tensor]:
        """Return the features that runs of sizes begin with, shapes :math:`(m, w, n)`."""
        runs = [x.neurons for x in self.levels if x.neurons is not None]
        return [columns[neurons] for neurons in runs]

    def weights(self, weight: Float64[Tensor, "K W"]) -> list[Tensor]:
        """Return the weights that runs begin with, with shapes :math:`(K, m, 1, w)`."""
        runs = [x.neurons for x in self.levels if x.neurons is not None]
        return [weight[:, neurons].unsqueeze(2) for neurons in runs]

    def sums(self, samples: int) -> ChunkSums:
        """Return memory for a number of each chunk and sample."""
        values = torch.empty(self.rows, samples, dtype=torch.float64)
        chunks = [level.chunks for level in self.levels]
        parts = torch.split(values, chunks)
        runs, halves = [], []
        for before, level, out in zip((None, *parts), self.levels, parts, strict=False):
            if before is None or level.neurons is not None:
                runs.append(out.unsqueeze(1))
            else:
                m = level.chunks
                halves.append((before[:m], before[m : 2 * m], out))
        return ChunkSums(values, runs, halves)

    def by_size(
        self, rows: Int64[Tensor, " rows"]
    ) -> dict[int, Int64[Tensor, " chunks"]]:
        """Return what belongs to each chunk, in the order of chunks."""
        found = {}
        for level in self.levels:
            own = rows[level.start : level.start + level.chunks]
            found[level.size] = torch.empty_like(own).index_copy_(0, level.order, own)
        return found


def _doubles(sizes: tuple[int, ...], i: int) -> bool:
    """Return whether chunks of a size are two of those of the size before."""
    return i > 0 and sizes[i] == 2 * sizes[i - 1]


def _orders(width: int, sizes: tuple[int, ...]) -> list[Int64[Tensor, " m"]]:
    """Return the order of the chunks of each size: halves block by block."""
    orders: list[Tensor] = []
    for i in reversed(range(len(sizes))):
        count = width // sizes[i]
        order = torch.arange(count)
        if i + 1 < len(sizes) and _doubles(sizes, i + 1):
            pairs = 2 * orders[0]
            # Of an odd number of chunks the last has no partner.
            order = torch.cat([pairs, pairs + 1, order[2 * len(pairs) :]])
        orders.insert(0, order)
    return orders
