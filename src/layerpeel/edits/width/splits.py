r"""The neurons that a layer gains: copies with shares of a neuron, or null neurons."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel.edits.resizing import NULL


@dataclass(frozen=True)
class Split:
    """One new neuron.

    Attributes:
        parent: Where in the wider layer the neuron is that is split; -1 for a null
            neuron.
        alpha: The share of it that the new neuron takes; the rest stays.
    """

    parent: int
    alpha: float


@dataclass(frozen=True)
class Splits:
    r"""The new neurons of a layer, each made in turn.

    A split of a neuron with outgoing weights :math:`a` gives the new neuron its incoming
    weights and :math:`\alpha a`, and leaves :math:`(1 - \alpha) a`. A neuron may be
    split again, and so may a copy.

    References:
        | Embedding Principle of Loss Landscape of Deep Neural Networks (Zhang, Zhang,
        | Luo & Xu, 2021), https://arxiv.org/abs/2105.14573

    Attributes:
        width: The number of neurons before.
        made: The new ones, in order; they come after the old ones.

    Example:
        >>> splits = Splits(2, (Split(1, 0.5), Split(2, 0.5)))
        >>> splits.sources.tolist(), splits.shares.tolist()
        ([0, 1, 1, 1], [1.0, 0.5, 0.25, 0.25])
    """

    width: int
    made: tuple[Split, ...] = field(default=())

    @property
    def sources(self) -> Int64[Tensor, " new"]:
        """The old neuron that each one is a copy of; -1 for null neurons."""
        sources = list(range(self.width))
        for split in self.made:
            sources.append(NULL if split.parent < 0 else sources[split.parent])
        return torch.tensor(sources)

    @property
    def shares(self) -> Float64[Tensor, " new"]:
        """The share of the old outgoing weights that each neuron has; 0 if null."""
        shares = [1.0] * self.width
        for split in self.made:
            if split.parent < 0:
                shares.append(0.0)
                continue
            whole = shares[split.parent]
            shares[split.parent] = (1 - split.alpha) * whole
            shares.append(split.alpha * whole)
        return torch.tensor(shares, dtype=torch.float64)

    @property
    def mixing(self) -> Float64[Tensor, "old new"]:
        """The outgoing weights of all neurons as combinations of the old ones."""
        sources, shares = self.sources, self.shares
        mixing = torch.zeros(self.width, len(sources), dtype=torch.float64)
        mixing[sources.clamp_min(0), torch.arange(len(sources))] = shares
        return mixing

    @classmethod
    def null(cls, width: int, count: int) -> Splits:
        """Return as many null neurons."""
        return cls(width, (Split(NULL, 0.0),) * count)

    @classmethod
    def largest(
        cls, norms: Float64[Tensor, " old"], count: int, alpha: float
    ) -> Splits:
        """Return splits of whichever neuron has the largest outgoing weights by then.

        Args:
            norms: The Euclidean norms of the outgoing weights.
            count: The number of new neurons; any number.
            alpha: The share that each of them takes.
        """
        queue = [(-norm, place) for place, norm in enumerate(norms.tolist())]
        heapq.heapify(queue)
        made = list[Split]()
        for new in range(len(norms), len(norms) + count):
            norm, place = heapq.heappop(queue)
            made.append(Split(place, alpha))
            heapq.heappush(queue, (norm * abs(1 - alpha), place))
            heapq.heappush(queue, (norm * abs(alpha), new))
        return cls(len(norms), tuple(made))
