"""One-vs-rest distances: how separable class directions are, for any number of classes.

References:
    | Generalized Neural Collapse for a Large Number of Classes
    | (Jiang et al., 2023), https://arxiv.org/abs/2310.05351
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel.geometry.one_vs_rest import one_vs_rest_distances
from layerpeel.measurement.metrics.directions import directions


def one_vs_rest(vectors: Float64[Tensor, "K p"]) -> Float64[Tensor, " K"]:
    r"""Return the distance of each class direction to the convex hull of the others.

    Of unit vectors :math:`u_k = v_k / \|v_k\|`. The least of them is maximal under
    generalised neural collapse: :math:`K/(K-1)` for a simplex, 1 for
    :math:`p + 2 \leq K \leq 2p`, less for more classes.

    Each class is a least-squares problem of its own: a hundred classes take a fraction
    of a second, a thousand take minutes.

    Args:
        vectors: One vector per class, centred as wanted, with shape :math:`(K, p)`.

    Returns:
        The distances, with shape :math:`(K,)`; NaN for classes without samples and,
        with a warning, for vanished vectors. Neither is part of the others' hull. NaN
        with a warning when fewer than two directions are left.

    Example:
        >>> square = torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, -4]]).double()
        >>> one_vs_rest(square).round(decimals=9).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    units = directions(vectors)
    there = ~units.isnan().any(1)
    vanished = int((~there & ~vectors.isnan().any(1)).sum())
    distances = torch.full((len(vectors),), torch.nan, dtype=torch.float64)
    if int(there.sum()) < 2:
        undefined(
            "One-vs-rest distances are undefined (NaN): they need two directions."
        )
        return distances
    if vanished:
        undefined(
            f"The one-vs-rest distances of {vanished} classes are undefined (NaN): "
            "their vectors have vanished, and have no direction."
        )
    distances[there] = one_vs_rest_distances(units[there])
    return distances
