"""Directions of class vectors: rows of unit length, and none where a vector vanished."""

from __future__ import annotations

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
    norms = vectors.norm(dim=1)
    longest = norms.nan_to_num().max() if len(norms) else 0.0
    vanished = norms <= VANISHED_NORM * longest
    units: Tensor = vectors / norms.masked_fill(vanished, nan)[:, None]
    return units
