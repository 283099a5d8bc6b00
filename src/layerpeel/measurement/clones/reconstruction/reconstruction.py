r"""How well a chunk of neurons reconstructs its layer linearly, from one covariance.

All that least squares needs is the mean and the scatter :math:`G` of the layer: for a
chunk :math:`S` the coefficients are :math:`A = G_{SS}^{-1} G_{S:}` and what they miss
has the scatter :math:`G - G_{:S} A`. On other data, with scatter :math:`G'`, mean
:math:`m'` and :math:`N'` samples, the second moment of what they miss is

.. math::
    E^\top \bigl(G' + N' (m' - m)(m' - m)^\top\bigr) E, \qquad
    E = I - \begin{pmatrix} A \\ 0 \end{pmatrix},

so that the shift of the mean is in it. The data are never looked at again.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, one_of, undefined
from layerpeel._tolerances import EPS, covariance_rank_tolerance
from layerpeel.measurement.clones.chunks import checked_chunk
from layerpeel.measurement.clones.reconstruction.basis import Basis
from layerpeel.measurement.clones.reconstruction.folded import FoldedClassifier
from layerpeel.measurement.clones.reconstruction.residual_correlations import (
    PAPER_FLOOR,
    correlation_sum,
    floored_sum,
)
from layerpeel.measurement.clones.reconstruction.ridge import PAPER_RIDGE, Ridge
from layerpeel.measurement.clones.reconstruction.rounding import (
    constant_neurons,
    rounding_scatter,
)
from layerpeel.measurement.statistics.covariance import Covariance

__all__ = [
    "PAPER_FLOOR",
    "PAPER_RIDGE",
    "SCOPES",
    "FoldedClassifier",
    "Reconstruction",
    "constant_neurons",
    "reconstruct",
]

SCOPES = ("all", "complement")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    r"""The least-squares reconstruction of a layer from a chunk; :func:`reconstruct`.

    Attributes:
        covariance: Of the data it was fitted to.
        chunk: The neurons :math:`S`, with shape :math:`(w,)`.
        basis: Those of them that are no combination of the others, up to rounding, with
            shape :math:`(r,)`.
        paper: Whether definitions are those of Doimo et al. (2021) to the letter.
        tolerance: The share of its deviation below which what is missed of a neuron is
            rounding; far from the origin more is.
        eps: The unit of the dtype that features were computed in.
    """

    covariance: Covariance
    chunk: Int64[Tensor, " w"]
    basis: Int64[Tensor, " r"]
    paper: bool
    tolerance: float
    eps: float
    _factor: Float64[Tensor, "r r"]
    _scale: Float64[Tensor, " r"]

    @property
    def rank(self) -> int:
        r"""The numerical rank of the chunk, at ``tolerance``.

        Below its size, neurons of the chunk are constant or combinations of others, or
        there are no more samples than neurons: coefficients are then those of least
        norm.
        """
        return len(self.basis)

    @cached_property
    def outside(self) -> Int64[Tensor, " m"]:
        """The neurons outside the chunk, in order, with shape :math:`(W - w,)`."""
        others = torch.ones(self.covariance.width, dtype=torch.bool)
        others[self.chunk] = False
        return others.nonzero().flatten()

    @cached_property
    def coefficients(self) -> Float64[Tensor, "w W"]:
        r"""The coefficients :math:`A`, with shape :math:`(w, W)`."""
        if self.paper:
            return self._ridge.coefficients
        every = torch.arange(self.covariance.width)
        if self.rank == len(self.chunk):
            # Neurons of the chunk are themselves, to the last bit.
            found = torch.zeros(len(self.chunk), len(every), dtype=torch.float64)
            found[torch.arange(self.rank), self.chunk] = 1.0
            position = _positions(self.chunk, self.basis)
            found[position[:, None], self.outside] = self._from_basis
            return found
        # Features are `H_S = H_B T` and the answer is `H_B X`: of all solutions of
        # `T A = X`, the one of least norm. `T T'` is at least the identity.
        within, solved = self._solved(self.chunk), self._solved(every)
        least: Tensor = torch.linalg.solve(within @ within.T, solved)
        return within.T @ least

    def r_squared(
        self, scope: str = "all", held_out: Covariance | None = None
    ) -> float:
        r"""Return the share of variance that the chunk reconstructs.

        .. math::
            R^2 = 1 - \frac{\mathrm{tr}\, \mathrm{Res}}{\mathrm{tr}\, G}

        Each neuron weighs as much as it varies. In sample, the residual is too small by
        a share of about :math:`w / N`.

        Args:
            scope: ``"all"`` neurons, as in the paper, where the chunk's own are a share
                :math:`w / W` that nothing is learned from; or those of the
                ``"complement"``.
            held_out: The covariance of other data to score on.

        Returns:
            NaN with a warning where nothing varies, or no neuron is outside the chunk.

        Raises:
            ValueError: If ``scope`` is another word.
            ShapeError: If the other data have another width.
        """
        columns = self._columns(scope)
        score = self._r_squared(columns, self._scored_on(held_out), held_out)
        if math.isnan(score):
            scored = self._scored_on(held_out)
            undefined(
                f"R^2 of a chunk is undefined (NaN): none of the {len(columns)} neurons "
                f"to reconstruct varies over the {int(scored.count)} samples."
            )
        return score

    def residual_correlation(
        self, scope: str = "all", held_out: Covariance | None = None
    ) -> float:
        r"""Return the mean absolute correlation between what neurons miss.

        .. math::
            \mathrm{mean}_{i > j} \frac{|C_{ij}|}{\sqrt{C_{ii} C_{jj}}}, \qquad
            C = \frac{\mathrm{Res}}{N - 1}

        A neuron without residual, up to rounding, has no correlation: it counts as zero
        among all neurons, as in the paper, and is left out of the complement.

        Args:
            scope: ``"all"`` pairs of neurons, as in the paper, where those of the chunk
                are zero by construction; or those of the ``"complement"``.
            held_out: The covariance of other data to score on.

        Returns:
            NaN with a warning where there is no pair.

        Raises:
            ValueError: If ``scope`` is another word.
            ShapeError: If the other data have another width.
        """
        columns = self._columns(scope)
        total, left = self._correlations(columns, held_out)
        neurons = len(columns) if scope == "all" or self.paper else left
        count = int(self._scored_on(held_out).count)
        if neurons < 2 or count < 2:
            return undefined(
                "The residual correlation is undefined (NaN): of "
                f"{len(columns)} neurons, {neurons} are not reconstructed to rounding "
                f"over {count} samples; it takes two of both."
            )
        return _mean_over_pairs(total, neurons, count)

    def scores(
        self, held_out: Covariance | None = None
    ) -> dict[str, tuple[float, float]]:
        """Return :math:`R^2` and the residual correlation by scope, in one go.

        As :meth:`r_squared` and :meth:`residual_correlation` say, without a warning where
        they are NaN.

        Args:
            held_out: The covariance of other data to score on.

        Raises:
            ShapeError: If the other data have another width.
        """
        scored = self._scored_on(held_out)
        every, outside = torch.arange(scored.width), self.outside
        # Independent neurons of the chunk are themselves: all is missed of the others.
        own_known = self.rank == len(self.chunk) and not self.paper
        missed = self._missed(outside, held_out) if own_known else None
        total, left = self._correlations(outside, held_out)
        whole = total if own_known else self._correlations(every, held_out)[0]
        count, neurons = int(scored.count), len(outside) if self.paper else left
        return {
            "all": (
                self._r_squared(every, scored, held_out, missed),
                _mean_over_pairs(whole, len(every), count),
            ),
            "complement": (
                self._r_squared(outside, scored, held_out, missed),
                _mean_over_pairs(total, neurons, count),
            ),
        }

    def _r_squared(
        self,
        columns: Int64[Tensor, " c"],
        scored: Covariance,
        held_out: Covariance | None,
        missed: Tensor | None = None,
    ) -> float:
        """Return R^2 of some neurons, of which what is missed may be known."""
        if not bool((~constant_neurons(scored, self.eps))[columns].any()):
            return math.nan
        if missed is None:
            missed = self._missed(columns, held_out)
        return float(1 - missed / scored.scatter.diagonal()[columns].sum())

    def _correlations(
        self, columns: Int64[Tensor, " c"], held_out: Covariance | None
    ) -> tuple[float, int]:
        """Return the sum over pairs of neurons, and of how many something is missed."""
        scored = self._scored_on(held_out)
        if held_out is None and not self.paper:
            # In sample the chunk's own neurons have no residual.
            columns = self.outside
        residual = self._residual(columns, held_out)
        left = self._left(residual.diagonal(), columns, scored)
        total = (
            floored_sum(residual / (scored.count - 1))
            if self.paper
            else correlation_sum(residual, left)
        )
        return total, int(left.sum())

    def folded(self, weight: Tensor, bias: Tensor | None = None) -> FoldedClassifier:
        """Return the classifier on the chunk that has the reconstruction folded in.

        Args:
            weight: Classifiers on the layer, with shape :math:`(K, W)`.
            bias: Their bias, with shape :math:`(K,)`.

        Raises:
            ShapeError: If the classifiers read another number of neurons.
        """
        if weight.ndim != 2 or weight.shape[1] != self.covariance.width:
            raise ShapeError(
                f"`weight` must have shape (K, {self.covariance.width}), one column per "
                f"neuron; got {tuple(weight.shape)}. Pass the consumer of this layer."
            )
        v = weight.detach().to("cpu", torch.float64)
        others = self.coefficients[:, self.outside]
        mean, chunk = self.covariance.mean, self.chunk
        missing = mean[self.outside] - others.T @ mean[chunk]
        offset = v[:, self.outside] @ missing
        if bias is not None:
            offset = offset + bias.detach().to("cpu", torch.float64)
        return FoldedClassifier(
            chunk, v[:, chunk] + v[:, self.outside] @ others.T, offset
        )

    @cached_property
    def _projected(self) -> Float64[Tensor, "r m"]:
        """The neurons outside, in orthonormal coordinates of the chunk."""
        rows = self.covariance.scatter[self.basis][:, self.outside]
        return _triangular(self._factor, self._scale[:, None] * rows)

    @cached_property
    def _from_basis(self) -> Float64[Tensor, "r m"]:
        """The coefficients of the neurons outside on the basis."""
        back: Tensor = torch.linalg.solve_triangular(
            self._factor.T, self._projected, upper=True
        )
        return self._scale[:, None] * back

    @cached_property
    def _ridge(self) -> Ridge:
        return Ridge(self.covariance.scatter, self.chunk, self.outside)

    def _solved(self, columns: Int64[Tensor, " c"]) -> Float64[Tensor, "r c"]:
        """Return the coefficients on the basis of some neurons."""
        rows = self._scale[:, None] * self.covariance.scatter[self.basis][:, columns]
        return self._scale[:, None] * torch.cholesky_solve(rows, self._factor)

    def _left(
        self, missed: Float64[Tensor, " c"], columns: Tensor, scored: Covariance
    ) -> Bool[Tensor, " c"]:
        """Return of which neurons more than rounding is missed."""
        # What is missed is a difference of terms, each known to its own rounding only.
        variances = scored.scatter.diagonal()
        least = self.tolerance**2 * (
            variances[columns] + self._read(variances, columns)
        )
        noise = rounding_scatter(scored, self.eps)
        if bool((noise > 0).any()):
            least = least.maximum(noise[columns] + self._read(noise, columns))
        return (missed > least) & ~constant_neurons(scored, self.eps)[columns]

    def _read(
        self, squares: Float64[Tensor, " W"], columns: Int64[Tensor, " c"]
    ) -> Float64[Tensor, " c"]:
        """Return what neurons of the chunk bring in, of a sum of squares of each."""
        if not self.paper and columns is self.outside:
            return self._from_basis.square().T @ squares[self.basis]
        return self.coefficients[:, columns].square().T @ squares[self.chunk]

    def _columns(self, scope: str) -> Int64[Tensor, " c"]:
        if one_of("scope", scope, SCOPES) == "complement":
            return self.outside
        return torch.arange(self.covariance.width)

    def _scored_on(self, held_out: Covariance | None) -> Covariance:
        if held_out is None:
            return self.covariance
        if held_out.width != self.covariance.width:
            raise ShapeError(
                f"Held-out data must have the {self.covariance.width} neurons of the "
                f"layer; got {held_out.width}. Extract the same layer."
            )
        return held_out

    def _missed(self, columns: Tensor, held_out: Covariance | None) -> Tensor:
        """Return the sum of squares that is missed of some neurons."""
        if held_out is None and not self.paper:
            variances = self.covariance.scatter.diagonal()[self.outside]
            return (variances - self._projected.square().sum(0)).clamp(min=0).sum()
        second = self.covariance.scatter
        if held_out is not None:
            shift = held_out.mean - self.covariance.mean
            second = torch.addr(held_out.scatter, shift, shift * held_out.count)
        a = self.coefficients[:, columns]
        inner = second[self.chunk]
        within = inner[:, self.chunk] @ a - 2 * inner[:, columns]
        return second.diagonal()[columns].sum() + (a * within).sum()

    def _residual(
        self, columns: Int64[Tensor, " c"], held_out: Covariance | None
    ) -> Float64[Tensor, "c c"]:
        """Return the centred scatter of what is missed of some neurons."""
        scatter = self._scored_on(held_out).scatter
        if held_out is None and not self.paper:
            own = scatter[self.outside][:, self.outside]
            return own.addmm_(self._projected.T, self._projected, alpha=-1)
        if held_out is None:
            return self._ridge.residual[columns][:, columns]
        a = self.coefficients[:, columns]
        inner = scatter[self.chunk]
        cross = a.T @ inner[:, columns]
        explained = a.T @ (inner[:, self.chunk] @ a)
        return scatter[columns][:, columns] - cross - cross.T + explained


def reconstruct(
    covariance: Covariance,
    chunk: Tensor | Sequence[int],
    *,
    paper: bool = False,
    eps: float = EPS,
) -> Reconstruction:
    r"""Reconstruct a layer from a chunk of its neurons by least squares.

    Args:
        covariance: Of the layer of :math:`W` neurons, on the CPU.
        chunk: Distinct indices of neurons, with shape :math:`(w,)`.
        paper: Whether to follow Doimo et al. (2021) to the letter: a ridge of
            ``PAPER_RIDGE`` in the regression, ``PAPER_FLOOR`` added to the
            denominator of correlations.
        eps: The unit of the dtype that features were computed in, such as
            ``torch.finfo(torch.float32).eps``. Neurons count as copies up to
            :math:`\sqrt{W}` of it, and never below :math:`\sqrt{W \epsilon}` with that
            of float64, of their deviation; and up to what it leaves of their size, where
            they are so far from the origin that this is more.

    Returns:
        The reconstruction, which scores itself in sample and on other data. With fewer
        samples than neurons, dead units or copies, it is that of least norm.

    Raises:
        ShapeError: If the chunk is no list.
        ValueError: If it does not hold distinct neurons of the layer.

    Example:
        >>> h = torch.tensor([[0.0, 1, 1], [1, 3, 0], [2, 5, 0], [3, 7, 1]])
        >>> found = reconstruct(Covariance.of(h), [0])
        >>> [round(x, 12) + 0.0 for x in found.coefficients.flatten().tolist()]
        [1.0, 2.0, 0.0]
        >>> round(found.r_squared(), 12), round(found.r_squared("complement"), 12)
        (0.961538461538, 0.952380952381)
    """
    indices = checked_chunk(chunk, covariance.width)
    tolerance = covariance_rank_tolerance(covariance.width, eps)
    basis = Basis.of(covariance, indices, eps)
    return Reconstruction(
        covariance, indices, basis.neurons, paper, tolerance, eps, *basis[1:]
    )


def _mean_over_pairs(total: float, neurons: int, count: int) -> float:
    """Return the mean over pairs of neurons; NaN without a pair of them or of samples."""
    if neurons < 2 or count < 2:
        return math.nan
    return total / (neurons * (neurons - 1) / 2)


def _positions(
    chunk: Int64[Tensor, " w"], neurons: Int64[Tensor, " r"]
) -> Int64[Tensor, " r"]:
    """Return where in a chunk its neurons stand."""
    order = chunk.argsort()
    return order[torch.searchsorted(chunk[order], neurons)]


def _triangular(
    factor: Float64[Tensor, "r r"], rows: Float64[Tensor, "r c"]
) -> Float64[Tensor, "r c"]:
    solved: Tensor = torch.linalg.solve_triangular(factor, rows, upper=False)
    return solved
