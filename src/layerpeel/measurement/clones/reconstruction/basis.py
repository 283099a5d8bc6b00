"""The neurons of a chunk that are no combination of the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from layerpeel._tolerances import covariance_rank_tolerance
from layerpeel.measurement.clones.reconstruction.rounding import (
    constant_neurons,
    rounding_scatter,
)
from layerpeel.measurement.clones.reconstruction.semidefinite import first_drowned
from layerpeel.measurement.statistics.covariance import Covariance


class Basis(NamedTuple):
    r"""Independent neurons, and the Cholesky factor of their scaled scatter.

    Attributes:
        neurons: With shape :math:`(r,)`.
        factor: Lower triangular :math:`L` with :math:`L L^\top = D G D`, with shape
            :math:`(r, r)`.
        scale: The diagonal of :math:`D`, with shape :math:`(r,)`.
    """

    neurons: Int64[Tensor, " r"]
    factor: Float64[Tensor, "r r"]
    scale: Float64[Tensor, " r"]

    @classmethod
    def of(
        cls, covariance: Covariance, chunk: Int64[Tensor, " w"], eps: float
    ) -> Basis:
        r"""Find the independent neurons of a chunk, up to rounding.

        The scale is the rounding of neurons. Near the origin that is a share of their
        deviation, so that what is independent does not depend on units, and a neuron
        that hardly varies is not taken for a dead one.

        Args:
            covariance: Of the layer.
            chunk: Neurons, with shape :math:`(w,)`.
            eps: The unit of the dtype that features were computed in.
        """
        varies = chunk[~constant_neurons(covariance, eps)[chunk]]
        scatter = covariance.scatter[varies][:, varies]
        tolerance = covariance_rank_tolerance(covariance.width, eps)
        noise = rounding_scatter(covariance, eps)[varies]
        scale = noise.maximum(tolerance**2 * scatter.diagonal()).rsqrt()
        found = cls(varies, scale[:, None] * scatter * scale, scale)
        # Centred samples span one direction less than there are.
        most = max(int(covariance.count) - 1, 0)
        factor, failed = torch.linalg.cholesky_ex(found.factor)
        regular = cls(varies, factor, scale)
        if not int(failed) and len(varies) <= most and regular._drowned is None:
            return regular
        found = found._pivoted()._first(most)
        return found._first(found._drowned)

    @property
    def _drowned(self) -> int | None:
        """The first pivot below rounding, of which a diagonal entry has one unit.

        What is left of a neuron has the rounding of all neurons that were taken out of
        it, with their coefficients: those of the inverse factor, times the pivot.
        """
        return first_drowned(self.factor, torch.ones(len(self.factor)).double())

    def _pivoted(self) -> Basis:
        """Factor what is not factored yet, with pivots above a unit of rounding."""
        factor, pivots, rank, _ = dpstrf(self.factor.numpy(), tol=1.0, lower=1)
        factor = torch.from_numpy(np.tril(factor[:rank, :rank]))
        order = torch.from_numpy(pivots[:rank].astype(np.int64) - 1)
        return Basis(self.neurons[order], factor, self.scale[order])

    def _first(self, count: int | None) -> Basis:
        return Basis(
            self.neurons[:count], self.factor[:count, :count], self.scale[:count]
        )
