r"""The covariance of features without regard to classes.

References:
    | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
    | (Chan, Golub & LeVeque, 1979)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError
from layerpeel.measurement.statistics.gram import add_gram, mirror
from layerpeel.measurement.statistics.statistic import Statistic

# Rows converted to float64 at a time: about 2 MB, which a core's cache holds, and never
# so few that updating the (d, d) scatter is limited by memory.
_BLOCK_ENTRIES = 2**18
_BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class Covariance(Statistic):
    r"""Count, mean and centred scatter of features, all classes together.

    .. math::
        m = \frac{1}{n} \sum_i h_i, \qquad T = \sum_i (h_i - m)(h_i - m)^\top

    Attributes:
        count: The number of samples :math:`n`.
        mean: The mean :math:`m`, with shape :math:`(d,)`; zero without samples.
        scatter: The scatter :math:`T`, with shape :math:`(d, d)`.

    Example:
        >>> h = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]])
        >>> whole = Covariance.of(h)
        >>> whole.matrix.tolist()
        [[2.6666666666666665, 2.0], [2.0, 2.0]]
        >>> parts = Covariance.of(h[:1]).merge(Covariance.of(h[1:]))
        >>> torch.allclose(parts.scatter, whole.scatter)
        True
    """

    count: Int64[Tensor, ""]
    mean: Float64[Tensor, " d"]
    scatter: Float64[Tensor, "d d"]

    @classmethod
    def empty(cls, width: int) -> Covariance:
        """Return the covariance of no data, the neutral element of ``merge``."""
        mean = torch.zeros(width, dtype=torch.float64)
        return cls(torch.tensor(0), mean, mean.new_zeros(width, width))

    @classmethod
    def of(cls, features: Tensor) -> Covariance:
        """Compute the covariance of some samples in float64, on their device.

        Args:
            features: Finite features of any floating type, with shape :math:`(n, d)`.

        Raises:
            ShapeError: If they have another shape.
        """
        if features.ndim != 2:
            raise ShapeError(
                "`features` must have shape (n, d), one row per sample; got "
                f"{tuple(features.shape)}. Flatten them with `features.flatten(1)`."
            )
        features = features.detach()
        if not len(features):
            return cls.empty(features.shape[1]).to(features.device)
        # About a row of the data sums are small, and a constant feature is exactly so.
        origin = features[0].to(torch.float64)
        return covariance_about(origin, features).moved(origin)

    @property
    def width(self) -> int:
        """The number of features :math:`d`."""
        return len(self.mean)

    @property
    def matrix(self) -> Float64[Tensor, "d d"]:
        """The covariance :math:`T / n`; NaN without samples."""
        return self.scatter / self.count

    @property
    def variance(self) -> float:
        r"""The total variance :math:`\mathrm{tr}\, T / n`; NaN without samples."""
        return float(self.scatter.trace() / self.count)

    @property
    def size(self) -> float:
        r"""The root mean square length :math:`\sqrt{\|m\|^2 + \mathrm{tr}\, T / n}`.

        Of the features as they are, not about their mean; NaN without samples.
        """
        return math.hypot(float(self.mean.norm()), math.sqrt(self.variance))

    @cached_property
    def eigenvalues(self) -> Float64[Tensor, " d"]:
        """Eigenvalues of the covariance, largest first, none below zero.

        The scatter knows them to rounding of the largest one, so that singular values
        of the centred data below about ``1e-8`` of the largest are noise.
        """
        if not bool(self.count):
            return torch.full_like(self.mean, torch.nan)
        rising: Tensor = torch.linalg.eigvalsh(self.matrix)
        return rising.flip(0).clamp(min=0)

    def moved(self, offset: Float64[Tensor, " d"]) -> Covariance:
        """Return that of the same features with ``offset`` added to each."""
        mean = torch.where(self.count > 0, self.mean + offset, self.mean)
        return Covariance(self.count, mean, self.scatter)

    def _merged(self, other: Covariance) -> Covariance:
        count = self.count + other.count
        # Without any data the weight is 0 / 1, not 0 / 0.
        weight = other.count / count.clamp(min=1).to(torch.float64)
        delta = other.mean - self.mean
        # Zero where either side has no samples, so its zero mean cannot enter.
        shift = self.count * weight * delta
        return Covariance(
            count,
            self.mean + weight * delta,
            (self.scatter + other.scatter).addr_(delta, shift),
        )


def covariance_about(origin: Float64[Tensor, " d"], features: Tensor) -> Covariance:
    """Return the covariance of at least one sample, with its mean about an origin.

    Args:
        origin: A point near the features, with shape :math:`(d,)`.
        features: Finite features, with shape :math:`(n, d)`.
    """
    rows = max(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, len(origin)))
    blocks = features.tensor_split(-(-len(features) // rows))
    mean = torch.zeros_like(origin)
    for block in blocks:
        mean += (block - origin).sum(0)
    mean /= len(features)
    scatter = origin.new_zeros(len(origin), len(origin))
    for block in blocks:
        centred = (block - origin).sub_(mean)
        add_gram(scatter, centred)
    mirror(scatter)
    count = torch.tensor(len(features), device=origin.device)
    return Covariance(count, mean, scatter)
