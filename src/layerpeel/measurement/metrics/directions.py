"""Directions of class vectors: rows of unit length, and none where a vector vanished."""

from __future__ import annotations

import math

from jaxtyping import Float64
from torch import Tensor, nan

from layerpeel._tolerances import VANISHED_NORM


def directions(vectors: Float64[Tensor, "K p"]) -> Float64[Tensor, "K p"]:
    """Return vectors scaled to unit length.

    A vector shorter than ``VANISHED_NORM`` of the longest has no direction: rounding
    would decide it.

    Args:
        vectors: One vector per class, with shape :math:`(K, p)`.

    Returns:
        The directions; rows of NaN for vanished vectors and for classes without samples.

    Example:
        >>> import torch
        >>> directions(torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double()).tolist()
        [[0.6, 0.8], [nan, nan]]
    """
    vectors, _ = unit_scaled(vectors)
    norms = vectors.norm(dim=1)
    longest = norms.nan_to_num().max() if len(norms) else 0.0
    vanished = norms <= VANISHED_NORM * longest
    units: Tensor = vectors / norms.masked_fill(vanished, nan)[:, None]
    return units


def unit_scaled(
    vectors: Float64[Tensor, "K p"],
) -> tuple[Float64[Tensor, "K p"], float]:
    """Return vectors whose largest entry is about one, and the factor that made it so.

    The factor is a power of two, so that no digit changes; squares of the entries then
    neither overflow nor, where they matter, underflow. What is zero stays as it is.

    Args:
        vectors: Vectors as rows, with shape :math:`(K, p)`. NaN is passed over.

    Example:
        >>> import torch
        >>> huge = torch.tensor([[2.0**700, 0.0]], dtype=torch.float64)
        >>> unit_scaled(huge)[0].tolist()
        [[0.5, 0.0]]
    """
    largest = float(vectors.nan_to_num(0).abs().max()) if vectors.numel() else 0.0
    # Within the exponents of float64; numbers beyond come near enough to one.
    exponent = max(-1000, min(1000, math.frexp(largest)[1]))
    factor = math.ldexp(1.0, -exponent)
    return vectors * factor, factor
