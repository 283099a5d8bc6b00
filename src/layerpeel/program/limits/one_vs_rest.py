"""The best that one-vs-rest distances of unit vectors can be, where it is known."""

from __future__ import annotations

import math

from layerpeel._checks import at_least
from layerpeel.geometry.one_vs_rest import one_vs_rest_distances

__all__ = ["one_vs_rest_distances", "one_vs_rest_optimum"]


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
