r"""Cholesky with pivots: neurons one by one, and what each leaves of the others.

After neurons :math:`S` have been taken, the scatter that a linear reconstruction from
them leaves is the Schur complement :math:`R = G - G_{:S} G_{SS}^{-1} G_{S:}`. Taking
one more, :math:`j`, lowers it by :math:`R_{:j} R_{j:} / R_{jj}`. Neither the whole of
:math:`R` nor an inverse is ever formed: its diagonal and what a consumer sees of it,
:math:`V R`, are enough to choose by, and they are cheap to update.

References:
    | On the low-rank approximation by the pivoted Cholesky decomposition
    | (Harbrecht, Peters & Schneider, 2012), https://doi.org/10.1016/j.apnum.2011.10.001
    | Orthogonal least squares methods and their application to non-linear system
    | identification (Chen, Billings & Luo, 1989): the gain of an output
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._tolerances import EPS, covariance_rank_tolerance


@dataclass(frozen=True, eq=False)
class Pivots:
    r"""Neurons in the order they were taken, and the factor of their scatter.

    Attributes:
        taken: All neurons taken, in order, with shape :math:`(w,)`.
        neurons: Those of them that are no linear combination of earlier ones to
            rounding, in order, with shape :math:`(r,)`.
        rows: Rows of the factor, with shape :math:`(r, W)`: the scatter reconstructed
            is :math:`L^\top L`, and the columns of ``neurons`` are upper triangular.
        left: Share of the consumer's scatter that is left after each neuron taken,
            beginning with 1 for none, with shape :math:`(w + 1,)`.
    """

    taken: Int64[Tensor, " w"]
    neurons: Int64[Tensor, " r"]
    rows: Float64[Tensor, "r W"]
    left: Tensor

    @property
    def coefficients(self) -> Float64[Tensor, "r W"]:
        r"""Coefficients :math:`A = G_{SS}^{-1} G_{S:}` of all neurons on the pivots."""
        triangle = self.rows[:, self.neurons].triu()
        solved: Tensor = torch.linalg.solve_triangular(triangle, self.rows, upper=True)
        solved[:, self.neurons] = torch.eye(len(triangle), dtype=torch.float64)
        return solved


def pivots(
    scatter: Float64[Tensor, "W W"],
    weight: Float64[Tensor, "C W"] | None = None,
    *,
    width: int | None = None,
    tolerance: float = 0.0,
    order: Int64[Tensor, " m"] | None = None,
    eps: float = EPS,
    noise: Float64[Tensor, " W"] | None = None,
) -> Pivots:
    r"""Take neurons until there are enough of them, or little enough is left.

    By default each is the one that leaves least: of the consumer's output
    :math:`\mathrm{tr}\, V R V^\top` when there is a consumer, and otherwise the one with
    the largest residual variance. A neuron whose residual is below rounding, a share
    :math:`W \varepsilon` of its own variance or more, is never a pivot.

    Args:
        scatter: The centred scatter :math:`G`, with shape :math:`(W, W)`.
        weight: The weights :math:`V` of the consumer, with shape :math:`(C, W)`.
        width: How many to take; by default until the tolerance is met.
        tolerance: The relative root-mean-square change of the output to stop at, when
            there is no width; floored at :math:`\sqrt{W \varepsilon}`. Where neurons
            cancel in the output, so that its change is not known to that, all are taken
            that are no linear combination of others.
        order: Take them in this order, whatever they leave.
        eps: The unit of the dtype that features were computed in.
        noise: Sums of squares that rounding leaves of neurons far from the origin.

    Example:
        >>> h = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]]).double()
        >>> pivots(h.T @ h).neurons.tolist()  # of two clones the larger
        [1]
    """
    floor = covariance_rank_tolerance(len(scatter), eps)
    process = _Elimination(scatter, weight, width or len(scatter), floor**2, noise)
    enough = max(tolerance, floor) ** 2 - process.noise
    waiting = None if order is None else order.tolist()
    taken: list[int] = []
    left = [1.0]
    while len(taken) < (width or len(scatter)):
        if taken and not width and (process.exhausted or left[-1] <= enough):
            break
        neuron = process.best(taken) if waiting is None else waiting[len(taken)]
        process.eliminate(neuron)
        taken.append(neuron)
        left.append(process.left())
    return Pivots(
        torch.tensor(taken),
        torch.tensor(process.neurons, dtype=torch.int64),
        process.rows[: len(process.neurons)].clone(),
        torch.tensor(left, dtype=torch.float64),
    )


class _Elimination:
    """Takes one neuron at a time out of a scatter, and keeps what that leaves."""

    def __init__(
        self,
        scatter: Tensor,
        weight: Tensor | None,
        most: int,
        rounding: float,
        noise: Tensor | None,
    ) -> None:
        self.scatter = scatter
        self.neurons: list[int] = []
        self.rows = scatter.new_zeros(min(most, len(scatter)), len(scatter))
        self.diagonal = scatter.diagonal().clone()
        # Of its own variance, since scaling a neuron changes nothing; and of the
        # largest, squared, since a constant one may have a variance of pure rounding.
        largest = float(self.diagonal.max())
        self.cutoff = rounding * self.diagonal + rounding**2 * largest
        if noise is not None:
            self.cutoff = self.cutoff.maximum(noise)
        if weight is not None and len(weight) > len(scatter):
            # Only lengths of outputs matter, and a rotation of outputs keeps them.
            weight = torch.linalg.qr(weight, mode="r").R
        self.weight = weight
        self.seen = None if weight is None else weight @ scatter
        self.total = self._remaining()

    @property
    def noise(self) -> float:
        """The share of the output's scatter that is rounding of larger terms in it.

        Near one unit, unless neurons cancel in the output: then what is left of it may
        be rounded to nothing long before it is.
        """
        if self.weight is None or self.total <= 0:
            return EPS
        terms = self.weight.square().sum(0) @ self.scatter.diagonal()
        return EPS * float(terms) / self.total

    @property
    def exhausted(self) -> bool:
        """Whether every neuron is a linear combination of those taken."""
        return not bool((self.diagonal > self.cutoff).any())

    def best(self, taken: list[int]) -> int:
        """Return the neuron that leaves least; an unused one if none is left."""
        gains = self.diagonal.clone()
        if self.seen is not None:
            gains = self.seen.square().sum(0) / self.diagonal
        gains = gains.masked_fill(self.diagonal <= self.cutoff, -1.0)
        gains[taken] = -2.0
        return int(gains.argmax())

    def eliminate(self, neuron: int) -> None:
        """Take a neuron out, unless nothing of it is left."""
        done = self.rows[: len(self.neurons)]
        column = self.scatter[neuron] - done[:, neuron] @ done
        own = float(column[neuron])
        if own <= float(self.cutoff[neuron]):
            self.diagonal[neuron] = 0
            return
        row = column / math.sqrt(own)
        row[self.neurons] = 0  # to rounding already
        self.rows[len(self.neurons)] = row
        self.neurons.append(neuron)
        self.diagonal -= row.square()
        self.diagonal[neuron] = 0
        if self.seen is not None:
            self.seen.addr_(self.seen[:, neuron] / math.sqrt(own), row, alpha=-1)
            self.seen[:, neuron] = 0

    def left(self) -> float:
        """Return the share of the consumer's scatter that is left."""
        return self._remaining() / self.total if self.total > 0 else 0.0

    def _remaining(self) -> float:
        if self.seen is None or self.weight is None:
            return float(self.diagonal.clamp(min=0).sum())
        return max(0.0, float((self.seen * self.weight).sum()))
