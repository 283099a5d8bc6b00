r"""Which neuron stands in for which, and the consumers that make up for the others.

Where :math:`h_k = s_k h_{j(k)} + t_k`, a consumer that reads :math:`r_k = \rho_k r_{j(k)}
+ \tau_k` reads the same from the neurons kept with weights :math:`a'_j = \sum_{k \to j}
\rho_k a_k` and the bias :math:`b' = b + \sum_k \tau_k a_k`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._tolerances import EQUAL_NEURON_ULPS
from layerpeel.edits.narrowing.chain import Chain

GONE = -1


@dataclass(frozen=True, eq=False)
class Reading:
    r"""New weights of a consumer.

    Attributes:
        blocks: Its weights by the neurons that are kept, with shape :math:`(C, w, T)`.
        shifts: What its bias makes up for, by tap, with shape :math:`(C, T)`.
    """

    blocks: Float64[Tensor, "C w T"]
    shifts: Float64[Tensor, "C T"]

    @property
    def shift(self) -> Float64[Tensor, " C"]:
        """What is added to the bias."""
        return self.shifts.sum(1)


@dataclass(frozen=True, eq=False)
class Substitution:
    r"""Which neuron stands in for which.

    Attributes:
        leaders: The neuron :math:`j(k)` that stands in for each, itself if it is kept,
            or -1 where nothing but a constant is left of it.
        factors: :math:`s_k`; zero for constants.
        shifts: :math:`t_k`.
    """

    leaders: Int64[Tensor, " W"]
    factors: Float64[Tensor, " W"]
    shifts: Float64[Tensor, " W"]

    @classmethod
    def none(cls, width: int) -> Substitution:
        """Return the one where each neuron stands for itself."""
        ones = torch.ones(width, dtype=torch.float64)
        return cls(torch.arange(width), ones, torch.zeros_like(ones))

    @property
    def kept(self) -> Int64[Tensor, " w"]:
        """The neurons that stand for themselves, ascending."""
        return (self.leaders == torch.arange(len(self.leaders))).nonzero()[:, 0]

    def put(
        self, neurons: int | Tensor, leader: int, factor: float | Tensor, shift: float
    ) -> None:
        """Let neurons be stood in for by another one, with a factor for each."""
        self.leaders[neurons], self.factors[neurons] = leader, factor
        self.shifts[neurons] = shift

    def undo(self, neuron: int) -> None:
        """Let a neuron stand for itself again."""
        self.put(neuron, neuron, 1.0, 0.0)

    def without(self, leaders: list[int]) -> Substitution:
        """Return the one where the groups of some leaders leave nothing but constants."""
        gone = torch.isin(self.leaders, torch.tensor(leaders, dtype=torch.int64))
        return Substitution(
            self.leaders.masked_fill(gone, GONE),
            self.factors.masked_fill(gone, 0.0),
            self.shifts.clone(),
        )

    def read(self, chain: Chain) -> Reading:
        """Return the new weights of a consumer."""
        factor, shift = self._relation(chain)
        blocks = chain.blocks * factor
        kept, out = self.kept, len(blocks)
        alive = self.leaders >= 0
        position = torch.searchsorted(kept, self.leaders[alive])
        # What stays as it is keeps its last bit, and adds no zero of another sign.
        new = chain.blocks[:, kept]
        grouped = torch.bincount(position, minlength=len(kept)) > 1
        if bool(grouped.any()):
            sums = blocks.new_zeros(out, len(kept), blocks.shape[2])
            sums.index_add_(1, position, blocks[:, alive])
            new[:, grouped] = sums[:, grouped]
        return Reading(new, (chain.blocks * shift).sum(1))

    def cancelled(self, chains: tuple[Chain, ...]) -> list[int]:
        """Return the leaders whose group nothing reads, up to the rounding of sums."""
        kept = self.kept
        if int((self.leaders >= 0).sum()) == len(kept):
            return []
        silent = torch.ones(len(kept), dtype=torch.bool)
        for chain in chains:
            terms = (chain.blocks * self._relation(chain)[0]).abs()
            sizes = terms.new_zeros(len(terms), self._width, terms.shape[2])
            alive = self.leaders >= 0
            sizes.index_add_(1, self.leaders[alive], terms[:, alive])
            rounding = EQUAL_NEURON_ULPS * chain.eps * sizes[:, kept]
            left = self.read(chain).blocks.abs() > rounding
            silent &= ~left.any(2).any(0)
        return [int(neuron) for neuron in kept[silent]]

    @property
    def _width(self) -> int:
        return len(self.leaders)

    def _relation(self, chain: Chain) -> tuple[Tensor, Tensor]:
        leaders = torch.where(self.leaders < 0, torch.arange(self._width), self.leaders)
        found = chain.relation(
            leaders, torch.arange(self._width), self.factors, self.shifts
        )
        mine = (self.leaders == torch.arange(self._width))[:, None]
        # Also where the normalisation is zero, and says nothing of what it is given.
        factor = torch.where(mine, 1.0, found.factor)
        return factor, torch.where(mine, 0.0, found.shift)
