r"""Eigenpairs that have a sign, and whether they keep it at the critical point nearby."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import KEPT_CURVATURE
from layerpeel.landscape.risk import Risk

# Of the eigenvectors the ones with the smallest eigenvalues are looked at again: as many
# as one block of products has.
_WEAKEST = 64


@dataclass(frozen=True, eq=False)
class Decided:
    r"""The eigenpairs of a Hessian that are larger than rounding and the gradient.

    A gradient that is small is not zero: the critical point that is meant lies a Newton
    step away. Near a degenerate one, as that of :math:`y^3` at zero, the eigenvalues are
    of the order of the root of the gradient, far above it, and of either sign, while
    they vanish at the critical point itself. Newton's step tells: there it changes the
    eigenvalue by half, and near a critical point that is not degenerate by next to
    nothing.

    References:
        | Newton Methods for Nonlinear Problems (Deuflhard, 2011),
        | https://doi.org/10.1007/978-3-642-23899-4: how much a derivative may change
        | along Newton's step

    Attributes:
        values: The eigenvalues, with shape :math:`(m,)`, the weakest first.
        vectors: The eigenvectors, with shape :math:`(p, m)`.
    """

    values: Float64[Tensor, " m"]
    vectors: Float64[Tensor, "p m"]

    @classmethod
    def of(
        cls,
        values: Float64[Tensor, " n"],
        vectors: Float64[Tensor, "p n"],
        judged_above: float,
    ) -> Decided:
        """Return those whose eigenvalue is above a size.

        Args:
            values: The eigenvalues, with shape :math:`(n,)`.
            vectors: The eigenvectors, with shape :math:`(p, n)`.
            judged_above: What eigenvalues must be larger than, in absolute value.
        """
        order = values.abs().argsort()
        order = order[values[order].abs() > judged_above]
        return cls(values[order], vectors[:, order])

    def step(self, gradient: Float64[Tensor, " p"]) -> Float64[Tensor, " p"]:
        """Return Newton's step among the eigenvectors, with shape :math:`(p,)`."""
        return -self.vectors @ (self.vectors.T @ gradient / self.values)

    def keep_negative(
        self, risk: Risk, gradient: Float64[Tensor, " p"], vector: Float64[Tensor, " p"]
    ) -> bool:
        """Whether the curvature along a vector stays as negative after Newton's step.

        Args:
            risk: The risk.
            gradient: Its gradient, with shape :math:`(p,)`.
            vector: A unit vector of negative curvature, with shape :math:`(p,)`.
        """
        before = risk.curvature(vector)
        others = self._without(vector)
        # It takes part in the step, be it decided or not.
        own = -vector * float(vector @ gradient) / before.value
        after = risk.curvature(vector, risk.point + others.step(gradient) + own)
        return after.is_negative and after.value <= KEPT_CURVATURE * before.value

    def keep_positive(self, risk: Risk, gradient: Float64[Tensor, " p"]) -> bool:
        """Whether all stay as positive after Newton's step, and are so beyond rounding.

        Args:
            risk: The risk.
            gradient: Its gradient, with shape :math:`(p,)`.
        """
        if not len(self.values):
            return True
        weakest = risk.curvature(self.vectors[:, 0].clone())
        if not weakest.value > weakest.rounding:
            return False
        basis = self.vectors[:, :_WEAKEST].clone()
        block = basis.T @ risk.product(basis, risk.point + self.step(gradient))
        lowest = float(torch.linalg.eigvalsh((block + block.T) / 2)[0])
        return lowest >= KEPT_CURVATURE * float(self.values[0])

    def _without(self, vector: Float64[Tensor, " p"]) -> Decided:
        others = (self.vectors.T @ vector).abs() < 0.5
        return Decided(self.values[others], self.vectors[:, others])
