r"""The quadratic form of a split, and where it is lowest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

# The larger solution of alpha (1 - alpha) = -1/4, next to 1/2, where it is 1/4.
OUTSIDE = (1 + math.sqrt(2)) / 2
ALPHAS = (0.5, OUTSIDE)


@dataclass(frozen=True, eq=False)
class Quadratic:
    r"""The curvature of the wide network along its new directions.

    In coordinates in which directions have their length,

    .. math::
        Q = \begin{pmatrix} w B / c & C / \sqrt{2 c} \\ C^\top / \sqrt{2 c} & 0
        \end{pmatrix}, \qquad w = t \alpha (1 - \alpha), \quad
        c = \alpha^2 + (1 - \alpha)^2,

    where the pair shares a part :math:`t` of the neuron's outgoing weights.

    Attributes:
        B: Symmetric, with shape :math:`(p, p)`.
        C: With shape :math:`(p, q)`.
        alpha: The part of the outgoing weights that goes to the copy.
        share: :math:`t`.
    """

    B: Float64[Tensor, "p p"]
    C: Float64[Tensor, "p q"]
    alpha: float
    share: float = 1.0

    @property
    def part(self) -> float:
        """The factor :math:`w`."""
        return self.share * self.alpha * (1 - self.alpha)

    @property
    def scale(self) -> float:
        """The factor :math:`c`."""
        return scale_of(self.alpha)

    def matrix(self) -> Float64[Tensor, "n n"]:
        """Return the matrix, with one row per entry of both parts."""
        q = self.C.shape[1]
        C = self.C / math.sqrt(2 * self.scale)
        top = torch.cat([self.part / self.scale * self.B, C], 1)
        below = torch.cat([C.T, C.new_zeros(q, q)], 1)
        return torch.cat([top, below])

    def lowest(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all eigenvalues, and the direction of the lowest in both parts."""
        values, vectors = torch.linalg.eigh(self.matrix())
        p = len(self.B)
        v, r = vectors[:p, 0] / math.sqrt(self.scale), vectors[p:, 0] / math.sqrt(2)
        return values, v, r

    def value(self, v: Tensor, r: Tensor) -> float:
        """Return the curvature along a direction."""
        return float(self.part * (v @ self.B @ v) + 2 * (v @ self.C @ r))


def scale_of(alpha: float) -> float:
    """Return the squared length of a split per squared length of the neuron's motion."""
    return alpha**2 + (1 - alpha) ** 2
