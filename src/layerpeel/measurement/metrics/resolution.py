r"""Class means that differ, and those that coincide up to rounding.

Means are known to rounding of the features that they are of, so that means which
coincide leave differences of that size: noise, whose directions and ratios mean nothing.
What is known here is the rounding of float64, in which means are accumulated. A network
that computes in float32 or bfloat16 has rounded its features before, and means that
coincide up to *that* are differences like any others.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import COINCIDENT_ULPS, EPS
from layerpeel.measurement.metrics.directions import unit_scaled
from layerpeel.measurement.statistics.conventions import centred_means
from layerpeel.measurement.statistics.moments import ClassMoments


def resolution(moments: ClassMoments) -> float:
    r"""Return the distance up to which class means coincide.

    A few units of rounding of the largest root mean square length of a class's features,
    :math:`\max_k \sqrt{\|\mu_k\|^2 + \mathrm{tr}\, S_k / n_k}`.

    Args:
        moments: Moments of the features, as they are.

    Example:
        >>> h = 1e6 + torch.tensor([[1.0], [-1.0]]).double()
        >>> moments = ClassMoments.of(h, torch.tensor([0, 1]), num_classes=2)
        >>> 0 < resolution(moments) < 1e-7
        True
    """
    means, factor = unit_scaled(moments.mean)
    # Variances that overflow, or have no samples, leave the size to the means.
    deviations = moments.class_variances.nan_to_num(0, 0, 0).sqrt()
    sizes = torch.hypot(means.norm(dim=1) / factor, deviations)
    return COINCIDENT_ULPS * EPS * float(sizes.max()) if len(sizes) else 0.0


def resolved_means(
    moments: ClassMoments, centring: str = "sample"
) -> Float64[Tensor, "K d"]:
    """Return the class means about the global mean, exactly zero where they are noise.

    Args:
        moments: Moments of the features.
        centring: A key of ``CENTRINGS``.

    Returns:
        The centred means, with shape :math:`(K, d)`; NaN for unseen classes, and zero for
        those no further from the centre than :func:`resolution`.

    Raises:
        ValueError: If ``centring`` is unknown.
    """
    means = centred_means(moments, centring)
    return without_noise(means, resolution(moments))


def without_noise(
    vectors: Float64[Tensor, "K d"], length: float
) -> Float64[Tensor, "K d"]:
    """Return vectors with zero for those up to a length; NaN stays as it is."""
    scaled, factor = unit_scaled(vectors)
    noise = scaled.norm(dim=1) / factor <= length
    return vectors.masked_fill(noise[:, None], 0)
