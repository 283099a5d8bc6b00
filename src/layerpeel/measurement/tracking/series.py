"""One metric over the course of training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64


class Series(NamedTuple):
    """One metric over the course of training.

    Attributes:
        steps: The steps at which it was recorded, with shape :math:`(T,)`.
        epochs: Their epochs; NaN where there is none.
        values: Its values; NaN where it was undefined.
    """

    steps: Int64[np.ndarray, " T"]
    epochs: Float64[np.ndarray, " T"]
    values: Float64[np.ndarray, " T"]
