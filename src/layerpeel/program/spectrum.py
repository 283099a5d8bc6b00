r"""A logit matrix that treats the classes of each group alike, by its singular values.

Cross-entropy is convex in the class-mean logits and classes of equal count are
interchangeable, so an optimal :math:`K \times K` logit matrix is unchanged when such
classes are permuted. Over :math:`G` groups of sizes :math:`m_g` that leaves

.. math::
    Z = \sum_g s_g \left(I_g - \tfrac{1}{m_g} J_g\right)
        + \sum_i \sigma_i \, \ell_i r_i^\top ,

with :math:`I_g` and :math:`J_g` identity and ones on group :math:`g`, and
:math:`\ell_i, r_i` constant on every group. This *is* a singular value decomposition:
:math:`s_g` has multiplicity :math:`m_g - 1`. Balanced classes are one group; all counts
distinct are :math:`K` groups of one class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._tolerances import rank_cutoff
from layerpeel.geometry import simplex_etf


@dataclass(frozen=True, eq=False)
class BlockSpectrum:
    r"""The singular value decomposition of a group-symmetric :math:`K \times K` matrix.

    Rows are classifiers and columns are class means. Exact zeros stay exact: classes
    whose spread is zero get equal rows, not nearly equal ones.

    Attributes:
        groups: The class indices of each of the :math:`G` groups.
        within: The singular values :math:`s_g \geq 0` within the groups, with shape
            :math:`(G,)`.
        between: The singular values :math:`\sigma_i \geq 0` between the groups, with
            shape :math:`(r,)`.
        left: Left singular vectors, in units of the normalised group indicators
            :math:`1_g / \sqrt{m_g}`, with shape :math:`(G, r)`.
        right: Right singular vectors in the same units, with shape :math:`(G, r)`.

    Example:
        >>> none = torch.zeros(1, 0, dtype=torch.float64)
        >>> spread = torch.tensor([3.0], dtype=torch.float64)
        >>> BlockSpectrum(((0, 1, 2),), spread, none[0], none, none).matrix.tolist()
        [[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]]
    """

    groups: tuple[tuple[int, ...], ...]
    within: Float64[Tensor, " G"]
    between: Float64[Tensor, " r"]
    left: Float64[Tensor, "G r"]
    right: Float64[Tensor, "G r"]

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return sum(map(len, self.groups))

    @property
    def sizes(self) -> Float64[Tensor, " G"]:
        """The number of classes of each group, with shape :math:`(G,)`."""
        return torch.tensor([len(g) for g in self.groups], dtype=torch.float64)

    @property
    def coupling(self) -> Float64[Tensor, "G G"]:
        r""":math:`\sum_i \sigma_i \ell_i r_i^\top` in units of group indicators."""
        return (self.left * self.between) @ self.right.T

    @property
    def nuclear_norm(self) -> float:
        """The sum of all singular values."""
        return float((self.sizes - 1) @ self.within + self.between.sum())

    @property
    def matrix(self) -> Float64[Tensor, "K K"]:
        """The matrix :math:`Z`."""
        return self._expand(self.coupling, self.within)

    def left_power(self, power: float = 1.0) -> Float64[Tensor, "K K"]:
        r"""Return :math:`U S^a U^\top`; at :math:`a = 1`, the root of :math:`Z Z^\top`."""
        between = (self.left * self.between**power) @ self.left.T
        return self._expand(between, self.within**power)

    def right_power(self, power: float = 1.0) -> Float64[Tensor, "K K"]:
        r"""Return :math:`V S^a V^\top`; at :math:`a = 1`, the root of :math:`Z^\top Z`."""
        between = (self.right * self.between**power) @ self.right.T
        return self._expand(between, self.within**power)

    @property
    def rank(self) -> int:
        """The numerical rank of :math:`Z`."""
        spread = (self.sizes - 1) * (self.within > self._cutoff)
        return int(spread.sum()) + int((self.between > self._cutoff).sum())

    def left_factor(self, power: float = 0.5) -> Float64[Tensor, "K rank"]:
        r"""Return :math:`L = U S^a`; with :math:`R = V S^{1-a}`, :math:`L R^\top = Z`."""
        return self._factor(self.left, power)

    def right_factor(self, power: float = 0.5) -> Float64[Tensor, "K rank"]:
        r"""Return :math:`R = V S^a`, in the same basis as :meth:`left_factor`."""
        return self._factor(self.right, power)

    @property
    def _cutoff(self) -> float:
        largest = torch.cat([self.within * (self.sizes > 1), self.between])
        return rank_cutoff(float(largest.max()), self.num_classes, self.num_classes)

    def _group_of(self) -> Int64[Tensor, " K"]:
        """Return the group index of each class."""
        index = torch.empty(self.num_classes, dtype=torch.int64)
        for g, classes in enumerate(self.groups):
            index[list(classes)] = g
        return index

    def _expand(
        self, coupling: Float64[Tensor, "G G"], within: Float64[Tensor, " G"]
    ) -> Float64[Tensor, "K K"]:
        """Return the matrix with the given parts between and within the groups."""
        scale = self.sizes.sqrt()
        blocks = coupling / torch.outer(scale, scale)
        blocks = blocks - torch.diag(within / self.sizes)
        group = self._group_of()
        return blocks[group][:, group] + torch.diag(within[group])

    def _factor(
        self, between: Float64[Tensor, "G r"], power: float
    ) -> Float64[Tensor, "K rank"]:
        keep = self.between > self._cutoff
        indicators = between[:, keep] * self.between[keep] ** power
        rows = (indicators / self.sizes.sqrt()[:, None])[self._group_of()]
        return torch.cat([*self._spread_factors(power), rows], dim=1)

    def _spread_factors(self, power: float) -> list[Float64[Tensor, "K columns"]]:
        """Return an orthonormal basis of each group's spread, times its power."""
        factors = []
        for classes, value in zip(self.groups, self.within, strict=True):
            size = len(classes)
            if size < 2 or value <= self._cutoff:
                continue
            # A unit simplex frame of m rows is sqrt(m / (m-1)) times such a basis.
            scale = value**power * math.sqrt((size - 1) / size)
            rows = value.new_zeros(self.num_classes, size - 1)
            rows[list(classes)] = simplex_etf(size, size - 1) * scale
            factors.append(rows)
        return factors
