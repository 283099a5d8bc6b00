r"""What rounding leaves of neurons: as variance of constants, and as residual of copies.

Features are rounded in proportion to their size, not to their deviation. Far from the
origin a copy is then missed by much more than its deviation times the unit of the dtype,
and what is missed is noise that a regression must not read.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel._tolerances import (
    CONSTANT_ULPS,
    EPS,
    covariance_rank_tolerance,
    rounding_noise,
)
from layerpeel.measurement.statistics.covariance import Covariance


def constant_neurons(covariance: Covariance, eps: float = EPS) -> Bool[Tensor, " W"]:
    """Return which neurons do not vary, up to the rounding of their mean.

    Args:
        covariance: Of the layer.
        eps: The unit of the dtype that features were computed in.
    """
    rounding = max(CONSTANT_ULPS * EPS, eps) * covariance.mean.abs()
    least = rounding.square() * covariance.count
    return covariance.scatter.diagonal() <= least


def rounding_scatter(covariance: Covariance, eps: float) -> Float64[Tensor, " W"]:
    """Return the sums of squares that rounding of features may leave of neurons.

    Zero for all, unless for one that varies they are above what counts as a copy anyway,
    which they are only far from the origin.

    Args:
        covariance: Of the layer.
        eps: The unit of the dtype that features were computed in.
    """
    variances = covariance.scatter.diagonal()
    squares = covariance.mean.square() * covariance.count + variances
    noise = squares * rounding_noise(1.0, eps) ** 2
    known = covariance_rank_tolerance(covariance.width, eps) ** 2 * variances
    varies = ~constant_neurons(covariance, eps)
    far = bool((noise > known)[varies].any())
    return noise if far else torch.zeros_like(noise)
