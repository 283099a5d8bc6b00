"""The root of an increasing convex function, by Newton's method from its right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

# Newton's method from the right converges quadratically after a few unit steps; this many
# are reached only by a function that is not what it should be.
_MOST_STEPS = 500

Values = Float64[np.ndarray, "*shape"]


def convex_root(
    function: Callable[[Values], tuple[Values, Values]], start: Values
) -> Values:
    """Return the roots of increasing convex functions, one per entry.

    From the right of a root, Newton's method decreases towards it and never passes it, so
    neither a bracket nor a step length is needed; it stops where rounding stops it.

    Args:
        function: Maps points to values and positive slopes, entry by entry.
        start: Points at or right of the roots, of any shape.

    Returns:
        The roots, of the same shape.

    Example:
        >>> root = convex_root(lambda x: (np.exp(x) - 2, np.exp(x)), np.array([3.0]))
        >>> root.round(9).tolist()  # log 2
        [0.693147181]
    """
    point = start
    for _ in range(_MOST_STEPS):
        value, slope = function(point)
        following = point - np.maximum(value, 0) / slope
        if not (following < point).any():
            break
        point = following
    return point
