"""How many eigenvalues of a Hessian are negative, zero and positive."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import NonFiniteError
from layerpeel._tolerances import EPS, GRADIENT_MARGIN, ZERO_EIGENVALUE_ULPS


@dataclass(frozen=True)
class Inertia:
    r"""The signs of the eigenvalues, and how many the gradient leaves open.

    Away from a critical point the curvature of the parametrisation, times the gradient,
    is added to the Hessian. It makes eigenvalues of either sign out of zeros, of about
    the size of the gradient: pictures with a gradient of 1e-4 and a cut at 1e-12 count
    them as saddle directions. They are counted as ``undecided`` here.

    References:
        | Embedding Principle in Depth for the Loss Landscape Analysis of Deep Neural
        | Networks (Bai et al., 2022), https://arxiv.org/abs/2205.13283: pictures of
        | eigenvalues at points where the gradient is about 1e-4

    Attributes:
        negative: The number of negative eigenvalues.
        zero: The number of those that are zero up to rounding.
        positive: The number of positive eigenvalues.
        undecided: The number of those above rounding that the gradient may have made.

    Example:
        >>> Inertia(0, 0, 7) + Inertia(1, 1, 1)
        Inertia(negative=1, zero=1, positive=8, undecided=0)
    """

    negative: int
    zero: int
    positive: int
    undecided: int = 0

    @classmethod
    def of(
        cls,
        eigenvalues: Float64[Tensor, " p"],
        *,
        gradient_norm: float = 0.0,
        error: float = 0.0,
        tolerance: float | None = None,
    ) -> Inertia:
        r"""Count the signs of a spectrum.

        An eigenvalue is zero up to :func:`zero_tolerance`, and undecided up to ten times
        the gradient norm. That margin supposes parameters of order one.

        Args:
            eigenvalues: All of them, in any order, with shape :math:`(p,)`.
            gradient_norm: The length of the gradient where the Hessian was taken.
            error: How far eigenvalues may be off: half the asymmetry of the Hessian.
            tolerance: What counts as zero instead, in absolute terms.

        Raises:
            NonFiniteError: If an eigenvalue is NaN or infinite.
        """
        if not bool(eigenvalues.isfinite().all()):
            raise NonFiniteError(
                "Eigenvalues must be finite; some are NaN or infinite. Look for a loss "
                "that overflows, or a function without a second derivative."
            )
        zero = zero_tolerance(eigenvalues, error) if tolerance is None else tolerance
        judged = max(zero, GRADIENT_MARGIN * gradient_norm)
        zeros = int((eigenvalues.abs() <= zero).sum())
        negative = int((eigenvalues < -judged).sum())
        positive = int((eigenvalues > judged).sum())
        open_ones = len(eigenvalues) - zeros - negative - positive
        return cls(negative, zeros, positive, open_ones)

    @property
    def size(self) -> int:
        """The number of eigenvalues."""
        return self.negative + self.zero + self.positive + self.undecided

    @property
    def signs(self) -> tuple[int, int, int]:
        """The numbers of negative, zero and positive eigenvalues."""
        return self.negative, self.zero, self.positive

    def __add__(self, other: Inertia) -> Inertia:
        """Return the inertia of a block-diagonal matrix of both."""
        return Inertia(
            self.negative + other.negative,
            self.zero + other.zero,
            self.positive + other.positive,
            self.undecided + other.undecided,
        )

    def __str__(self) -> str:
        text = f"({self.negative}, {self.zero}, {self.positive})"
        return f"{text} and {self.undecided} undecided" if self.undecided else text


def zero_tolerance(eigenvalues: Float64[Tensor, " p"], error: float = 0.0) -> float:
    r"""Return the size up to which eigenvalues of a computed Hessian are zero.

    It is :math:`16\, p\, \varepsilon \max_i |\lambda_i|` or twice the error that was
    seen, whichever is larger.

    Args:
        eigenvalues: All of them, with shape :math:`(p,)`.
        error: Half the asymmetry of the Hessian as it was computed.
    """
    largest = float(eigenvalues.abs().max()) if len(eigenvalues) else 0.0
    return max(ZERO_EIGENVALUE_ULPS * EPS * len(eigenvalues) * largest, 2 * error)
