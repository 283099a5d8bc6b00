"""The regression with a ridge of the protocol, from one scatter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._tolerances import EPS

# The ridge of the regressions of Doimo et al. (2021).
PAPER_RIDGE = 1e-8


@dataclass(frozen=True, eq=False)
class Ridge:
    r"""The ridge regression of a layer on a chunk of it.

    Attributes:
        scatter: Of the layer, with shape :math:`(W, W)`.
        chunk: Its neurons, with shape :math:`(w,)`.
        outside: The others, with shape :math:`(W - w,)`.
    """

    scatter: Float64[Tensor, "W W"]
    chunk: Int64[Tensor, " w"]
    outside: Int64[Tensor, " m"]

    @cached_property
    def coefficients(self) -> Float64[Tensor, "w W"]:
        """Of all neurons, with one step of refinement, with shape :math:`(w, W)`."""
        rows = self.scatter[self.chunk]
        first = self._inverse @ rows
        left = rows - rows[:, self.chunk] @ first - PAPER_RIDGE * first
        return first + self._inverse @ left

    @cached_property
    def residual(self) -> Float64[Tensor, "W W"]:
        r"""The scatter of what the ridge :math:`\alpha` misses, in sample.

        With :math:`P = (G_{SS} + \alpha I)^{-1}` it misses :math:`\alpha P` of the
        chunk's own neurons: a difference would be rounding.
        """
        scatter, chunk, outside = self.scatter, self.chunk, self.outside
        a, shrunk = self.coefficients[:, outside], PAPER_RIDGE * self._inverse
        own = scatter[chunk][:, chunk]
        cross = PAPER_RIDGE * (shrunk @ a)
        missed = torch.empty_like(scatter)
        missed[chunk[:, None], chunk] = shrunk @ own @ shrunk
        missed[chunk[:, None], outside] = cross
        missed[outside[:, None], chunk] = cross.T
        rows = scatter[chunk][:, outside]
        explained = a.T @ (rows + PAPER_RIDGE * a)
        missed[outside[:, None], outside] = scatter[outside][:, outside] - explained
        return missed

    @cached_property
    def _inverse(self) -> Float64[Tensor, "w w"]:
        return _ridge_inverse(self.scatter[self.chunk][:, self.chunk])


def _ridge_inverse(scatter: Float64[Tensor, "w w"]) -> Float64[Tensor, "w w"]:
    """Return the inverse with the ridge of the protocol, whatever the condition."""
    width = len(scatter)
    ridge = torch.eye(width, dtype=torch.float64) * PAPER_RIDGE
    factor, failed = torch.linalg.cholesky_ex(scatter + ridge)
    pivots = factor.diagonal().square()
    if not int(failed) and bool(pivots.min() > width * EPS * pivots.max()):
        return torch.cholesky_inverse(factor)
    # A pivot near rounding says nothing. Directions without variance are left out:
    # there is nothing to reconstruct from them.
    values, vectors = torch.linalg.eigh(scatter)
    kept = values > width * EPS * values.max()
    inverse = torch.where(kept, 1 / (values + PAPER_RIDGE), 0.0)
    found: Tensor = (vectors * inverse) @ vectors.T
    return found
