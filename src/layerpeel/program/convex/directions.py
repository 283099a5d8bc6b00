"""Singular values with their vectors: the part of a point between the groups."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor


class Directions(NamedTuple):
    """Singular values with their vectors, one per column."""

    left: Float64[Tensor, "G r"]
    values: Float64[Tensor, " r"]
    right: Float64[Tensor, "G r"]

    @classmethod
    def of(cls, matrix: Float64[Tensor, "G G"]) -> Directions:
        """Decompose a matrix; values decrease."""
        U, S, Vt = torch.linalg.svd(matrix)
        return cls(U, S, Vt.T)

    @classmethod
    def of_product(
        cls, left: Float64[Tensor, "G r"], right: Float64[Tensor, "G r"]
    ) -> Directions:
        """Decompose ``left @ right.T``, at the cost of its rank."""
        if 2 * left.shape[1] > len(left):
            return cls.of(left @ right.T).kept(torch.arange(left.shape[1]))
        (first, upper), (second, lower) = torch.linalg.qr(left), torch.linalg.qr(right)
        inner = cls.of(upper @ lower.T)
        return cls(first @ inner.left, inner.values, second @ inner.right)

    def kept(self, keep: Tensor) -> Directions:
        """Return the directions of a mask or a range."""
        return Directions(self.left[:, keep], self.values[keep], self.right[:, keep])

    @property
    def matrix(self) -> Float64[Tensor, "G G"]:
        """The sum of the directions."""
        return (self.left * self.values) @ self.right.T
