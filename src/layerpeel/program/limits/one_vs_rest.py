"""How far each class vector is from the hull of the others: more classes than width."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import nnls
from torch import Tensor

from layerpeel._checks import ShapeError, at_least


def one_vs_rest_distances(vectors: Float64[Tensor, "_ _"]) -> Float64[Tensor, " K"]:
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
        vectors: One vector per row, with shape :math:`(K, p)`.

    Returns:
        The distances, with shape :math:`(K,)`.

    Raises:
        ShapeError: If there are fewer than two vectors.
        ValueError: If a number is not finite.

    Example:
        >>> from layerpeel import simplex_etf
        >>> one_vs_rest_distances(simplex_etf(4)).round(decimals=6).tolist()
        [1.333333, 1.333333, 1.333333, 1.333333]
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ShapeError(
            "`vectors` must have shape (K, p) with at least two rows; got "
            f"{tuple(vectors.shape)}."
        )
    rows = vectors.numpy()
    if not np.isfinite(rows).all():
        raise ValueError("`vectors` must be finite; got NaN or infinity.")
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


def one_vs_rest_optimum(num_classes: int, width: int) -> float:
    r"""Return the largest possible least distance of unit vectors, where it is known.

    :math:`K / (K - 1)` for :math:`K \leq p + 1` (a simplex equiangular tight frame), 1
    for :math:`p + 2 \leq K \leq 2 p` (attained by :math:`\pm` an orthonormal basis where
    :math:`K = 2 p`), and :math:`1 - \cos(2 \pi / K)` in the plane (a regular polygon).

    References:
        | Generalized Neural Collapse for a Large Number of Classes (Jiang et al., 2023),
        | https://arxiv.org/abs/2310.05351

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        width: The dimension :math:`p`.

    Returns:
        The distance.

    Raises:
        ValueError: If the numbers are too small, or :math:`K > 2 p` with
            :math:`p \neq 2`, where no formula is known.

    Example:
        >>> one_vs_rest_optimum(4, width=3), one_vs_rest_optimum(6, width=3)
        (1.3333333333333333, 1.0)
    """
    at_least("num_classes", num_classes, 2)
    at_least("width", width, 1)
    if num_classes <= width + 1:
        return num_classes / (num_classes - 1)
    if num_classes <= 2 * width:
        return 1.0
    if width == 2:
        return 1 - math.cos(2 * math.pi / num_classes)
    raise ValueError(
        "`num_classes` must be at most 2 * width, or the width 2; got "
        f"{num_classes} classes in {width} dimensions, where no formula is known. "
        "Optimise the vectors, and measure them by `one_vs_rest_distances`."
    )
