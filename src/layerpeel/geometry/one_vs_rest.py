"""How far each class vector is from the hull of the others: more classes than width."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import nnls
from torch import Tensor

from layerpeel._checks import ShapeError

# Whatever torch makes a tensor of; there is no common base class.
AnyArray: TypeAlias = Any


def one_vs_rest_distances(vectors: AnyArray) -> Float64[Tensor, " K"]:
    r"""Return the distance of each vector to the convex hull of the others.

    .. math::
        d_k = \min \Big\{ \Big\| w_k - \sum_{j \neq k} \mu_j w_j \Big\| : \mu \geq 0, \;
        \sum_j \mu_j = 1 \Big\}

    Their minimum over :math:`k` is what classifiers on a sphere maximise as the
    temperature of the cross-entropy goes to zero, also where :math:`K` classes do not fit
    into the width as a simplex.

    References:
        | Generalized Neural Collapse for a Large Number of Classes (Jiang et al., 2023),
        | https://arxiv.org/abs/2310.05351

    Args:
        vectors: One vector per row, with shape :math:`(K, p)`: a tensor on any device
            and with or without gradient, a NumPy array, or lists.

    Returns:
        The distances, with shape :math:`(K,)`.

    Raises:
        ShapeError: If there are fewer than two vectors.
        ValueError: If a number is not finite or not real.

    Example:
        >>> from layerpeel import simplex_etf
        >>> one_vs_rest_distances(simplex_etf(4)).round(decimals=6).tolist()
        [1.333333, 1.333333, 1.333333, 1.333333]
    """
    given = torch.as_tensor(vectors).detach()
    if given.ndim != 2 or len(given) < 2:
        raise ShapeError(
            "`vectors` must have shape (K, p) with at least two rows; got "
            f"{tuple(given.shape)}."
        )
    if given.is_complex():
        raise ValueError(f"`vectors` must be real; got {given.dtype}.")
    rows = given.to("cpu", torch.float64).numpy()
    if not np.isfinite(rows).all():
        raise ValueError("`vectors` must be finite; got NaN or infinity.")
    if rows.shape[1] > len(rows):
        # Coordinates in the space that the rows span: distances are the same there.
        rows = np.linalg.qr(rows.T)[1].T
    others = ~np.eye(len(rows), dtype=bool)
    distances = [
        _distance_to_origin(rows[k] - rows[others[k]]) for k in range(len(rows))
    ]
    return torch.tensor(distances, dtype=torch.float64)


def _distance_to_origin(points: Float64[np.ndarray, "m p"]) -> float:
    r"""Return the least norm in the convex hull of some points.

    With :math:`\lambda = s \mu`, the least of :math:`\|\lambda^\top P\|^2 +
    (1^\top \lambda - 1)^2` over :math:`s` is :math:`d^2 / (1 + d^2)` with
    :math:`d = \|\mu^\top P\|`: nonnegative least squares finds the same :math:`\mu`.
    """
    size = float(np.linalg.norm(points, axis=1).max())
    if size == 0:
        return 0.0
    scaled = points / size
    system = np.vstack([scaled.T, np.ones(len(points))])
    target = np.append(np.zeros(points.shape[1]), 1.0)
    weights, _ = nnls(system, target)
    return float(np.linalg.norm(weights @ scaled) / weights.sum()) * size
