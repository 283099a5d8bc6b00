"""What vanishing regularisation leaves: directions, and the multipliers that prove them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._json import plain
from layerpeel.geometry import Geometry
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Certificate, Status


@dataclass(frozen=True, eq=False)
class Limit:
    r"""The least class-mean logits that keep a margin, and their least-norm factors.

    As regularisation vanishes, norms grow without bound and the solution of a peeled
    program approaches a ray: this is its point where the least margin is one. Classifiers
    and features are balanced, so with decay per sample

    .. math::
        \|W\|_F^2 = \sum_k n_k \|\bar h_k\|^2 = \|Z D^{1/2}\|_* ,

    and with decay per class :math:`\|W\|_F^2 = \sum_k \|\bar h_k\|^2 = \|Z\|_*`.

    Attributes:
        status: ``CLOSED_FORM``.
        certificate: The nuclear norm, and the bound that the multipliers prove.
        factors: Classifiers and class means.
        multipliers: The dual multipliers, with shape :math:`(K, K)`: entry ``[j, k]``
            belongs to the margin of class ``k`` against class ``j``. They are zero on
            the diagonal; none is negative.
    """

    status: Status
    certificate: Certificate
    factors: SpectralFactors = field(repr=False)
    multipliers: Float64[Tensor, "K K"] = field(repr=False)

    @property
    def nuclear_norm(self) -> float:
        """The least nuclear norm that keeps the margins."""
        return self.certificate.objective

    @property
    def geometry(self) -> Geometry:
        """The Gram matrices of classifiers and class means, and the logits."""
        return self.factors.geometry

    @property
    def logits(self) -> Float64[Tensor, "K K"]:
        """Logits :math:`Z`, one class mean per column."""
        return self.geometry.logits

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the cosines between classifiers.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        return self.geometry.plot(ax)

    def to_dict(self) -> dict[str, Any]:
        """Return status, certificate and geometry, ready for JSON."""
        return {
            "status": self.status.name,
            "nuclear_norm": self.nuclear_norm,
            "gap": plain(self.certificate.gap),
            "geometry": self.geometry.to_dict(),
        }
