"""Methods of a frozen value that are computed once for each choice of arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def remembered(method: Callable[P, T]) -> Callable[P, T]:
    """Compute a method once for each choice of arguments, and keep it on the instance."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        known = vars(args[0]).setdefault("_known", {})
        key = (method.__name__, args[1:], tuple(sorted(kwargs.items())))
        if key in known:
            remembered: T = known[key]
            return remembered
        value = method(*args, **kwargs)
        # What is undefined is computed anew, and says again why it is.
        if not _undefined(value):
            known[key] = value
        return value

    return call


def _undefined(value: object) -> bool:
    """Whether a number, or one of the numbers of a result, is NaN."""
    numbers = vars(value).values() if is_dataclass(value) else (value,)
    return any(isinstance(n, float) and math.isnan(n) for n in numbers)
