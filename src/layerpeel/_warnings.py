"""Warnings that point at the caller's line, however deep in the package they arise."""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class UndefinedWarning(UserWarning):
    """A quantity is undefined and reported as NaN; the message names the cause."""


def warn(message: str, category: type[Warning] = UndefinedWarning) -> None:
    """Warn at the line that called into the package.

    Python shows a warning once for each line by default: one that pointed into the
    package would be shown once for all of the caller's networks.

    Args:
        message: What happened, and what to do.
        category: The class of the warning.
    """
    warnings.warn(message, category, stacklevel=_caller_level())


def undefined(cause: str) -> float:
    """Warn that a quantity is undefined, and return NaN for it.

    Args:
        cause: The sentence that says what is undefined and why.
    """
    warn(cause)
    return math.nan


def _caller_level() -> int:
    """Return the level, seen from :func:`warn`, of the first frame outside."""
    level, frame = 1, sys._getframe(1)
    # A cached property computes its value in a frame of the standard library.
    inside = (_PACKAGE, functools.__file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    return level
