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
        return self._expand(self.coupling)

    @property
    def left_root(self) -> Float64[Tensor, "K K"]:
        r"""The square root :math:`(Z Z^\top)^{1/2}`."""
        return self._expand((self.left * self.between) @ self.left.T)

    @property
    def right_root(self) -> Float64[Tensor, "K K"]:
        r"""The square root :math:`(Z^\top Z)^{1/2}`."""
        return self._expand((self.right * self.between) @ self.right.T)

    @property
    def rank(self) -> int:
        """The numerical rank of :math:`Z`."""
        spread = (self.sizes - 1) * (self.within > self._cutoff)
        return int(spread.sum()) + int((self.between > self._cutoff).sum())

    def left_factor(self) -> Float64[Tensor, "K rank"]:
        r"""Return :math:`L = U S^{1/2}`, where :math:`L R^\top = Z`."""
        return self._factor(self.left)

    def right_factor(self) -> Float64[Tensor, "K rank"]:
        r"""Return :math:`R = V S^{1/2}`, in the same basis as :meth:`left_factor`."""
        return self._factor(self.right)

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

    def _expand(self, coupling: Float64[Tensor, "G G"]) -> Float64[Tensor, "K K"]:
        """Return the matrix with the given part between groups, block by block."""
        scale = self.sizes.sqrt()
        blocks = coupling / torch.outer(scale, scale)
        blocks = blocks - torch.diag(self.within / self.sizes)
        group = self._group_of()
        return blocks[group][:, group] + torch.diag(self.within[group])

    def _factor(self, between: Float64[Tensor, "G r"]) -> Float64[Tensor, "K rank"]:
        keep = self.between > self._cutoff
        indicators = between[:, keep] * self.between[keep].sqrt()
        rows = (indicators / self.sizes.sqrt()[:, None])[self._group_of()]
        return torch.cat([*self._spread_factors(), rows], dim=1)

    def _spread_factors(self) -> list[Float64[Tensor, "K columns"]]:
        """Return an orthonormal basis of each group's spread, times its root."""
        factors = []
        for classes, value in zip(self.groups, self.within, strict=True):
            size = len(classes)
            if size < 2 or value <= self._cutoff:
                continue
            # A unit simplex frame of m rows is sqrt(m / (m-1)) times such a basis.
            frame = simplex_etf(size, size - 1) * (value * (size - 1) / size).sqrt()
            rows = frame.new_zeros(self.num_classes, size - 1)
            rows[list(classes)] = frame
            factors.append(rows)
        return factors
