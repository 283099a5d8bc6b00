"""The Cholesky factor of a matrix that may be singular, in a given order."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

# Columns factored one by one before the rest is updated by a product.
_PANEL = 64


def semidefinite_cholesky(
    matrix: Float64[Tensor, "W W"],
    tolerance: float,
    rank: int | None = None,
    noise: Float64[Tensor, " W"] | None = None,
) -> Float64[Tensor, "W W"]:
    r"""Return a Cholesky factor without pivoting of a matrix that may be singular.

    Where what is left as the pivot is below the noise of all the rows that are in it,
    the whole column of the factor is zero: the row is a combination of those before it.

    Args:
        matrix: Symmetric and positive semidefinite up to rounding, with shape
            :math:`(W, W)`; only its lower triangle is read.
        tolerance: The share of the diagonal that is noise.
        rank: The largest rank it can have, where that is known: later pivots are zero,
            even if rounding has left more of them than the tolerance.
        noise: How much of each diagonal entry is noise, where that is more, with shape
            :math:`(W,)`.

    Returns:
        Lower triangular :math:`L` with :math:`L L^\top` equal to the matrix up to the
        tolerance.

    Example:
        >>> ones = torch.ones(2, 2, dtype=torch.float64)
        >>> semidefinite_cholesky(ones, 1e-12).tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """
    unit = tolerance * matrix.diagonal()
    unit = unit if noise is None else unit.maximum(noise)
    most = len(matrix) if rank is None else rank
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed) and most >= len(matrix) and first_drowned(factor, unit) is None:
        return factor
    process = _Elimination(matrix, unit, most)
    for start in range(0, len(matrix), _PANEL):
        process.factor_panel(start)
    return process.factor


def first_drowned(
    factor: Float64[Tensor, "W W"], noise: Float64[Tensor, " W"]
) -> int | None:
    r"""Return the first row of a Cholesky factor whose pivot is below noise.

    What is left of a row is a combination of it and rows before it, whose coefficients
    are those of :math:`L^{-1}`, times the pivot. It has the noise of them all.

    Args:
        factor: Lower triangular :math:`L`, with a positive diagonal.
        noise: How much of each diagonal entry of :math:`L L^\top` is noise.
    """
    if not len(factor):
        return None
    diagonal = factor.square().sum(1)
    pivots = factor.diagonal().square() / diagonal
    # Of a nearly singular block, coefficients are as large as its pivot is small. Where
    # every pivot is above the root of all noise, none has enough of that.
    if bool((pivots.square() > (noise / diagonal).max()).all()):
        return None
    inverse = torch.linalg.solve_triangular(factor, noise.sqrt().diag(), upper=False)
    drowned = (inverse.square().sum(1) >= 1).nonzero().flatten()
    return int(drowned[0]) if len(drowned) else None


class _Elimination:
    r"""Takes rows into a factor, with the noise in what is left of each.

    Attributes:
        factor: Lower triangular :math:`L`, so far.
        inverse: :math:`L^{-1} D` of the rows in it, where :math:`D` has the deviation
            of noise.
    """

    def __init__(self, matrix: Tensor, noise: Tensor, most: int) -> None:
        self.matrix = matrix
        self.deviation = noise.sqrt()
        self.left = most
        self.factor = torch.zeros_like(matrix)
        self.inverse = torch.zeros_like(matrix)

    def factor_panel(self, start: int) -> None:
        """Factor some columns of what earlier columns have left of the matrix."""
        rows = slice(start, min(start + _PANEL, len(self.matrix)))
        done = self.factor[:, :start]
        panel = self.matrix[start:, rows] - done[start:] @ done[rows].T
        noise = self.factor[rows, :start] @ self.inverse[:start]
        part = self.factor[start:, rows]
        for k in range(panel.shape[1]):
            column = panel[k:, k] - part[k:, :k] @ part[k, :k]
            own = noise[k] + part[k, :k] @ self.inverse[start : start + k]
            own[start + k] = -self.deviation[start + k]
            if self.left > 0 and column[0] > own.square().sum():
                self._take(start + k, column, own)

    def _take(self, row: int, column: Tensor, noise: Tensor) -> None:
        """Take a row into the factor."""
        pivot = column[0].sqrt()
        self.factor[row:, row] = column / pivot
        self.inverse[row] = -noise / pivot
        self.left -= 1
