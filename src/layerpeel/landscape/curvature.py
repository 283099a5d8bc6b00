r"""The curvature along a direction, with what rounding may have done to it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Curvature:
    r"""The Rayleigh quotient :math:`v^\top H v / v^\top v`, computed several times.

    No quotient is below the lowest eigenvalue: one that is negative proves a negative
    eigenvalue, whatever the direction and without any residual.

    **The bound on rounding.** The quotient is computed in several ways: from the product
    of Hessian and direction, and as the second derivative of the loss along the
    direction, there and where parameters and direction differ by a few units in their
    last places, as rounding inside of layers makes them. Twice the largest difference,
    plus all terms in absolute value times the unit roundoff times as many terms as there
    are parameters and samples, is the bound. It is evaluated, not proved by interval
    arithmetic: what a layer adds and takes away again by itself is not seen.

    Attributes:
        value: The quotient.
        rounding: The bound on its rounding.

    Example:
        >>> Curvature(-1e-3, 1e-15).is_negative, Curvature(-1e-16, 1e-15).is_negative
        (True, False)
    """

    value: float
    rounding: float

    @classmethod
    def of(
        cls, values: tuple[float, ...], magnitude: float, terms: int, eps: float
    ) -> Curvature:
        """Return the curvature of several evaluations.

        Args:
            values: The quotient, computed in several ways; the first is reported.
            magnitude: The sum of the terms that it consists of, in absolute value.
            terms: How many numbers may be added up in a row.
            eps: The unit of the dtype.
        """
        spread = max(abs(values[0] - value) for value in values)
        return cls(values[0], 2 * spread + terms * eps * magnitude)

    @property
    def is_negative(self) -> bool:
        """Whether a negative eigenvalue is proved, up to the bound on rounding."""
        return math.isfinite(self.rounding) and self.value + self.rounding < 0

    def is_below(self, margin: float) -> bool:
        """Whether it is proved to be negative, and by more than a margin.

        Args:
            margin: What the gradient may add to an eigenvalue.
        """
        return self.is_negative and self.value < -margin
