"""What the pictures share: how the two groups of classes look, and their legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from layerpeel._checks import ShapeError
from layerpeel._figures import colour

# The shape says the same as the colour.
MARKER = {"majority": "o", "minority": "^"}


def by_role(num_classes: int, minority: Sequence[int]) -> dict[str, list[int]]:
    """Return the classes of each non-empty group; without minority all are majority."""
    rare = set(minority)
    frequent = [k for k in range(num_classes) if k not in rare]
    split = {"majority": frequent, "minority": sorted(rare)}
    return {role: classes for role, classes in split.items() if classes}


def array(values: Tensor) -> NDArray[np.float64]:
    """Return a tensor as an array of its own memory."""
    return values.detach().cpu().double().numpy().copy()


def check_lengths(num_classes: int, values: Mapping[str, Tensor]) -> None:
    """Check that every tensor is about the classes that have names.

    Raises:
        ShapeError: If one is not.
    """
    for name, value in values.items():
        if len(value) != num_classes:
            raise ShapeError(
                f"`{name}` must have one entry for each of the {num_classes} `labels`; "
                f"got {len(value)}."
            )


def group_legend(minority: Sequence[int], *, size: float = 5.5) -> dict[str, Line2D]:
    """Return the legend entries of the groups; none when the classes are balanced."""
    if not len(minority):
        return {}
    return {role: mark(MARKER[role], role, size=size) for role in MARKER}


def mark(shape: str, role: str, *, size: float = 5.5, **look: Any) -> Line2D:  # noqa: ANN401
    """Return a marker as a legend shows it."""
    return Line2D(
        [], [], linestyle="", marker=shape, color=colour(role), markersize=size, **look
    )


def legend(fig: Figure, entries: Mapping[str, Line2D]) -> None:
    """Put a legend of one line above the figure."""
    if entries:
        fig.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper left",
            ncols=len(entries),
            handletextpad=0.3,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
