"""Numbers that an argument may be."""

from __future__ import annotations

import math

from layerpeel._checks import as_number


def finite(name: str, value: object, wanted: str = "a finite number") -> float:
    """Return a number that is finite; texts are none.

    Args:
        name: The argument that it is.
        value: What it is.
        wanted: What it must be, in words.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> finite("alpha", 1)
        1.0
    """
    number = None if isinstance(value, str) else as_number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"`{name}` must be {wanted}; got {value!r}.")
    return number
