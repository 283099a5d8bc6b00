"""The loss of a class-level program and its gradient, by hand, in numpy."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float64
from scipy.special import entr, xlog1py

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss

# Any matrix and any vector: factors of one point have many shapes.
Matrix = Float64[np.ndarray, "_ _"]
Vector = Float64[np.ndarray, " _"]


class Columns(Protocol):
    """A loss of each column of a matrix: logits and bias of one class."""

    def losses(self, logits: Matrix) -> tuple[Vector, Matrix]:
        """Return the losses, and a residual of each column."""

    def slopes(self, residual: Matrix) -> Matrix:
        """Return the gradient of each loss; linear in the residual."""

    def curvature(self, residual: Matrix, column: int) -> Matrix:
        """Return the Hessian of one loss."""

    def conjugates(self, residual: Matrix, share: float) -> Vector:
        r"""Return :math:`-\ell^*` at the slopes of a share of the residual."""


class DataTerm:
    r"""The weighted loss :math:`\sum_k \pi_k \ell(a_k, k)`, without ridge."""

    def __init__(self, program: ClassLevel) -> None:
        self.weights = program.weights.numpy()
        loss = program.loss
        self.columns: Columns = (
            _Softmax(loss) if isinstance(loss, SoftmaxLoss) else _Squared()
        )

    def __call__(self, logits: Matrix) -> tuple[float, Matrix]:
        """Return the value at logits plus bias, and the gradient."""
        losses, residual = self.columns.losses(logits)
        slopes: Matrix = self.columns.slopes(residual) * self.weights
        return float(self.weights @ losses), slopes


class _Softmax:
    """Small losses keep their digits: ``log1p``, not a difference of two numbers.

    The residual is softmax minus target.
    """

    def __init__(self, loss: SoftmaxLoss) -> None:
        self.scale = loss.scale.numpy()[:, None] / loss.margin.numpy()
        self.offset = loss.offset.numpy()[:, None]
        self.smoothing = loss.smoothing.numpy()
        self.common = loss.common.numpy()
        self.targets = loss.targets.numpy()

    def losses(self, logits: Matrix) -> tuple[Vector, Matrix]:
        shifted = self.scale * logits + self.offset
        # Against the own logit: the remainder of a class that is fitted well is tiny.
        against = shifted - np.diagonal(shifted)
        odds = against.copy()
        np.fill_diagonal(odds, -np.inf)
        surprise = np.logaddexp(0.0, _log_sum_exp(odds))
        residual = np.exp(odds - surprise) - np.outer(self.common, self.smoothing)
        np.fill_diagonal(residual, 0.0)
        np.fill_diagonal(residual, -residual.sum(axis=0))
        losses = surprise - self.smoothing * (self.common @ against)
        return losses, residual

    def slopes(self, residual: Matrix) -> Matrix:
        slopes: Matrix = residual * self.scale
        return slopes

    def curvature(self, residual: Matrix, column: int) -> Matrix:
        scale = self.scale[:, column]
        chance = scale * (residual + self.targets)[:, column]
        curvature: Matrix = np.diag(scale * chance) - np.outer(chance, chance)
        return curvature

    def conjugates(self, residual: Matrix, share: float) -> Vector:
        mixed = self.targets + share * residual
        np.fill_diagonal(mixed, 0.0)
        rest = mixed.sum(axis=0)
        entropy = entr(mixed).sum(axis=0) - xlog1py(1 - rest, -rest)
        moved = share * (self.offset * residual).sum(axis=0)
        conjugates: Vector = entropy + moved
        return conjugates


class _Squared:
    """The residual is logits minus one-hot labels, and is the gradient itself."""

    def losses(self, logits: Matrix) -> tuple[Vector, Matrix]:
        residual = logits - np.eye(len(logits))
        return np.square(residual).sum(axis=0) / 2, residual

    def slopes(self, residual: Matrix) -> Matrix:
        return residual

    def curvature(self, residual: Matrix, column: int) -> Matrix:
        del column
        return np.eye(len(residual))

    def conjugates(self, residual: Matrix, share: float) -> Vector:
        half_square: Vector = np.square(share * residual).sum(axis=0) / 2
        conjugates: Vector = -half_square - share * np.diagonal(residual)
        return conjugates


def _log_sum_exp(columns: Matrix) -> Vector:
    top = columns.max(axis=0)
    sums: Vector = top + np.log(np.exp(columns - top).sum(axis=0))
    return sums
