"""The logarithm of a mixture, the one function that two-group formulas are made of."""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# The formulas hold for numbers, through `math`, and for arrays, through `numpy`.
Reals = TypeVar("Reals", float, NDArray[np.float64])


def log_mix(xp: ModuleType, h: Reals, c: Reals | float) -> Reals:
    r"""Return :math:`\lambda(h, c) = \log(1 + c (e^h - 1))`.

    Neither small nor huge arguments lose digits. The inverse of
    :math:`h \mapsto \lambda(h, c)` is :math:`\lambda(\cdot, 1 / c)`.

    Args:
        xp: ``math`` for numbers, ``numpy`` for arrays.
        h: Where :math:`1 + c (e^h - 1)` is positive.
        c: A positive number.

    Example:
        >>> import math
        >>> round(math.exp(log_mix(math, math.log(3), 0.5)), 12)
        2.0
        >>> log_mix(math, -1e-20, 0.25), log_mix(math, 1e6, 1.0)
        (-2.5e-21, 1000000.0)
    """
    growing = h > 0
    weight = c + growing * (1 - 2 * c)  # 1 - c where h > 0
    mixed: Reals = growing * h + xp.log1p(weight * xp.expm1(-abs(h)))
    return mixed
