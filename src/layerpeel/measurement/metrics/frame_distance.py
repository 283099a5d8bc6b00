r"""The distance of a product of class vectors to that of a frame, scale removed.

The products of the frames of neural collapse are a diagonal plus one constant: for a
simplex :math:`I - J/K`, for orthogonal frames :math:`\mathrm{diag}(a)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.measurement.metrics.directions import unit_scaled
from layerpeel.measurement.metrics.pairs import row_blocks

FRAMES: Mapping[str, str] = MappingProxyType(
    {
        "simplex": "equal lengths at the largest equal angles: centred vectors of "
        "balanced training",
        "orthogonal": "equal lengths at right angles: uncentred vectors of training "
        "without a bias",
    }
)
"""Frames that are known by the number of classes alone, by name."""


def product_distance(
    left: Float64[Tensor, "K p"],
    right: Float64[Tensor, "K p"],
    diagonal: Float64[Tensor, " K"],
    constant: float = 0.0,
) -> float:
    r"""Return :math:`\| P/\|P\|_F - T/\|T\|_F \|_F` for :math:`P = L R^\top`.

    Blocks of rows keep the memory at :math:`O(K p)`; the price is a second product,
    since the norm of the first has to be known.

    Args:
        left: Rows of :math:`L`, one per class, with shape :math:`(K, p)`.
        right: Rows of :math:`R`, with the same shape.
        diagonal: The diagonal :math:`a` of the target
            :math:`T = \mathrm{diag}(a) + c J`.
        constant: Its constant :math:`c`.

    Returns:
        The distance, between 0 and 2; NaN when the product is zero.
    """
    # The scale does not count, and squares of large or tiny products would.
    left, right = unit_scaled(left)[0], unit_scaled(right)[0]
    blocks = list(row_blocks(len(left)))
    size = math.hypot(*(float((left[rows] @ right.T).norm()) for rows in blocks))
    target = _norm(diagonal, constant)
    if size == 0 or target == 0:
        return math.nan
    total = 0.0
    for rows in blocks:
        difference = (left[rows] @ right.T) / size - constant / target
        own = torch.arange(len(difference))
        difference[own, own + rows.start] -= diagonal[rows] / target
        total += float(difference.square().sum())
    return math.sqrt(total)


def frame_target(frame: str, classes: int) -> tuple[Float64[Tensor, " K"], float]:
    """Return the diagonal and the constant of a frame's Gram matrix.

    Args:
        frame: A key of ``FRAMES``.
        classes: The number of classes :math:`K`.
    """
    ones = torch.ones(classes, dtype=torch.float64)
    return ones, -1 / classes if frame == "simplex" else 0.0


def _norm(diagonal: Float64[Tensor, " K"], constant: float) -> float:
    classes = len(diagonal)
    on = float((diagonal + constant).square().sum())
    return math.sqrt(on + classes * (classes - 1) * constant**2)
