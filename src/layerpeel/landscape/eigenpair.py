"""An eigenvalue with its vector, and how well they belong together."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from layerpeel.landscape.risk import Risk


@dataclass(frozen=True, eq=False)
class Eigenpair:
    r"""A unit vector :math:`v`, its quotient and its residual.

    The Hessian has an eigenvalue within ``residual`` of ``value``. The lowest one is not
    above ``value``, whatever the residual; see :class:`Curvature` for the rounding.

    Attributes:
        value: The quotient :math:`\rho = v^\top H v`.
        residual: The length of :math:`H v - \rho v`.
        vector: The vector :math:`v`, with shape :math:`(p,)`.
    """

    value: float
    residual: float
    vector: Float64[Tensor, " p"]

    @classmethod
    def of(
        cls, risk: Risk, vector: Float64[Tensor, " p"], at: Tensor | None = None
    ) -> Eigenpair:
        """Return the pair of a vector of any length, with one product.

        Args:
            risk: The risk.
            vector: Near an eigenvector, with shape :math:`(p,)`.
            at: Where to take the Hessian; the model's own point when omitted.
        """
        unit = vector / vector.norm()
        product = risk.product(unit, at)
        value = float(unit @ product)
        return cls(value, float((product - value * unit).norm()), unit)
