r"""Neurons that point in nearly the same direction, one of each kept.

For a positively homogeneous activation a neuron is :math:`\|\tilde w_k\|` times one with
a unit row. Those within a cosine of each other are replaced by one of them, :math:`j`,
that is read with the weights :math:`\sum_k a_k \|\tilde w_k\| / \|\tilde w_j\|`. The one
that stays is that of the largest :math:`\|a_k\| \|\tilde w_k\|`, so that what carries
most stays as it is.

What a consumer returns then changes by no more than

.. math::
    L \sum_k \|a_k\| \, \Big\| \tilde w_k
    - \tfrac{\|\tilde w_k\|}{\|\tilde w_j\|} \tilde w_j \Big\| \, \|\tilde x\| ,

with the Lipschitz constant :math:`L` of the activation.

References:
    | Embedding Principle of Loss Landscape of Deep Neural Networks
    | (Zhang, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2105.14573: the reduction; its
    | bound and the choice of the one that stays are this package's own.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import EditError
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.substitution import GONE, Substitution

Members: TypeAlias = npt.NDArray[np.int64]


class Cosines:
    """Neurons by their direction.

    Args:
        neurons: The neurons of a layer with a positively homogeneous activation.

    Attributes:
        matrix: Cosines of the effective rows, with shape :math:`(W, W)`.

    Raises:
        EditError: If the activation is another one, or pooling stands before it.
    """

    def __init__(self, neurons: Neurons) -> None:
        if not (neurons.folded and neurons.symmetry.homogeneous):
            raise EditError(
                "The method 'cosine' scales neurons: the activation must be positively "
                "homogeneous, such as ReLU, leaky ReLU or PReLU, with nothing but batch "
                "normalisation before it. Use `method='clones'`, which reads the data."
            )
        self._neurons = neurons
        self._lengths = lengths = neurons.lengths
        units = neurons.rows / torch.where(lengths > 0, lengths, 1.0)[:, None]
        self.matrix: Float64[Tensor, "W W"] = (units @ units.T).clamp(-1, 1)
        self._order = (neurons.outgoing * lengths).argsort(descending=True, stable=True)
        # Factors of lengths are not negative, and pass whatever is not normalised.
        stages = any(chain.stages for chain in neurons.chains)
        self._free = not stages and neurons.slopes.shape[1] == 0

    @property
    def thresholds(self) -> Float64[Tensor, " T"]:
        """All cosines between two neurons, from the largest to the smallest."""
        rows, columns = torch.triu_indices(self._neurons.width, self._neurons.width, 1)
        found: Tensor = torch.unique(self.matrix[rows, columns])
        return found.flip(0)

    def grouped(self, threshold: float) -> Substitution:
        """Return the groups of neurons whose cosine with one of them is large enough."""
        found = Substitution.none(self._neurons.width)
        lengths, rows = self._lengths, (self.matrix >= threshold).numpy()
        free = (lengths > 0).numpy()
        for neuron in (~free).nonzero()[0].tolist():
            self._drop(found, neuron)
        # Many small steps, on arrays that are shared with the tensors: they cost less.
        leaders = found.leaders.numpy()
        for leader in self._order.tolist():
            if not free[leader]:
                continue
            free[leader] = False
            near = (rows[leader] & free).nonzero()[0]
            if len(near):
                near = self._allowed(leader, near)
                leaders[near], free[near] = leader, False
        grouped = (found.leaders != torch.arange(len(leaders))) & (found.leaders >= 0)
        led = found.leaders[grouped]
        found.factors[grouped] = lengths[grouped] / lengths[led]
        return found

    def widened(self, found: Substitution, width: int) -> Substitution:
        """Let those farthest from their leader stand for themselves, up to a width."""
        grouped = (found.leaders != torch.arange(len(found.leaders))).nonzero()[:, 0]
        cosines = self.matrix[grouped, found.leaders[grouped]]
        cosines[found.leaders[grouped] == GONE] = 1.0
        spare = width - len(found.kept)
        for neuron in grouped[cosines.argsort(stable=True)][:spare].tolist():
            found.undo(neuron)
        return found

    def bound(self, found: Substitution) -> float:
        """Return how far a consumer's output moves per unit of length of the input.

        Infinite where something between the features and a consumer may stretch them.
        """
        neurons = self._neurons
        leaders = torch.where(found.leaders < 0, 0, found.leaders)
        apart = neurons.rows - found.factors[:, None] * neurons.rows[leaders]
        squares = 0.0
        for chain in neurons.chains:
            if not chain.contracts:
                return math.inf
            read = (chain.blocks * chain.scale).norm(dim=0).sum(1)
            squares += float((read * apart.norm(dim=1)).sum()) ** 2
        return neurons.lipschitz * math.sqrt(squares)

    def _drop(self, found: Substitution, neuron: int) -> None:
        """Drop a neuron that is zero for every input, where its readers allow it."""
        pair = torch.tensor([neuron]), torch.tensor([neuron])
        zero = torch.zeros(1, dtype=torch.float64)
        chains = self._neurons.chains
        if all(bool(c.relation(*pair, zero, zero).holds) for c in chains):
            found.put(neuron, GONE, 0.0, 0.0)

    def _allowed(self, leader: int, near: Members) -> Members:
        """Return the neurons that a leader may stand in for."""
        if self._free:
            return near
        neurons, members = self._neurons, torch.from_numpy(near)
        same = (neurons.slopes[members] == neurons.slopes[leader]).all(1)
        ratios = self._lengths[members] / self._lengths[leader]
        alike = torch.full_like(members, leader)
        zero = torch.zeros_like(ratios)
        for chain in neurons.chains:
            same &= chain.relation(alike, members, ratios, zero).holds
        allowed: Members = near[same.numpy()]
        return allowed
