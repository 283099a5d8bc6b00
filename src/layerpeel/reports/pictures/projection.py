r"""Features seen in the plane in which the class means differ most.

Two dimensions of many: classes that lie on each other here may be apart in another
plane. The axis labels say how much of the spread of the class means is visible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from layerpeel._checks import ShapeError
from layerpeel._figures import colour, figure, plain, style
from layerpeel.reports.pictures._groups import (
    MARKER,
    array,
    by_role,
    check_lengths,
    group_legend,
    legend,
    mark,
)

_WIDTH, _HEIGHT = 390.0, 335.0
# About the size of the axes in points, to place labels before the layout is known.
_PANEL = (345.0, 270.0)
# Enough points to show the shape of a cloud, few enough for a small file.
_MOST_POINTS = 800
# More arrows of one group than this would cover everything; the first are drawn.
_MOST_ARROWS = 60
# Up to this many classes have their names written.
_MOST_NAMES = 20


@style()
def class_mean_projection(
    points: Float64[Tensor, "n p"],
    point_labels: Int64[Tensor, " n"],
    means: Float64[Tensor, "K p"],
    classifiers: Float64[Tensor, "K p"],
    labels: Sequence[str],
    minority: Sequence[int],
) -> Figure:
    r"""Draw features, class means and classifiers in the plane of the class means.

    The plane is spanned by the two leading principal directions of the centred class
    means; the origin is their mean. Classifiers are drawn as directions: one factor,
    the same for all, scales them to the picture. About 800 points are drawn, evenly
    spaced within each class, and the classifiers of the first 60 classes of a group.

    Args:
        points: Features, with shape :math:`(n, p)`.
        point_labels: Their classes, with shape :math:`(n,)`.
        means: Class means, with shape :math:`(K, p)`; NaN rows for classes never seen.
        classifiers: Rows of the last weight matrix, with shape :math:`(K, p)`.
        labels: The names of the classes.
        minority: The indices of the minority classes.

    Returns:
        The figure.

    Raises:
        ShapeError: If the shapes disagree.
    """
    check_lengths(len(labels), {"means": means, "classifiers": classifiers})
    _check_widths(points, point_labels, means, classifiers)
    plane, origin, shares = _plane(array(means))
    chosen = _evenly_chosen(point_labels.cpu().numpy(), len(labels))
    flat_points = (array(points)[chosen] - origin) @ plane
    flat_means = (array(means) - origin) @ plane
    arrows = _scaled(array(classifiers) @ plane, flat_means)
    fig = figure(_WIDTH, _HEIGHT)
    ax = fig.add_subplot()
    _frame(ax, np.concatenate([flat_points, flat_means, arrows]), shares)
    groups = by_role(len(labels), minority)
    _draw_points(ax, flat_points, point_labels.cpu().numpy()[chosen], groups)
    _draw_arrows(ax, arrows, groups)
    _draw_means(ax, flat_means, groups)
    if len(labels) <= _MOST_NAMES:
        _name_means(ax, flat_means, arrows, labels)
    legend(fig, group_legend(minority) | _entries())
    return fig


def _entries() -> dict[str, Line2D]:
    return {
        "class mean": mark("o", "measured", size=8),
        "classifier": mark(r"$\rightarrow$", "measured", size=11),
    }


def _check_widths(
    points: Tensor, point_labels: Tensor, means: Tensor, classifiers: Tensor
) -> None:
    widths = {tensor.shape[1] for tensor in (points, means, classifiers)}
    if len(widths) > 1 or len(points) != len(point_labels):
        raise ShapeError(
            "`points`, `means` and `classifiers` must have the same width, and every "
            f"point a label; got the shapes {tuple(points.shape)}, "
            f"{tuple(means.shape)}, {tuple(classifiers.shape)} and "
            f"{len(point_labels)} labels."
        )


def _plane(
    means: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return two directions as columns, the origin, and the shares of the spread."""
    seen = means[np.isfinite(means).all(axis=1)]
    width = means.shape[1]
    origin = seen.mean(axis=0) if len(seen) else np.zeros(width)
    _, spread, directions = np.linalg.svd(seen - origin, full_matrices=False)
    plane = np.zeros((width, 2))
    plane[:, : min(2, len(directions))] = directions[:2].T
    largest = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    # The sign of a singular vector is arbitrary; the largest entry is made positive.
    plane *= np.where(largest < 0, -1, 1)
    squares = np.zeros(2)
    squares[: min(2, len(spread))] = spread[:2] ** 2
    return plane, origin, squares / max((spread**2).sum(), np.finfo(float).tiny)


def _evenly_chosen(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the indices of evenly spaced points of each class."""
    most = max(1, _MOST_POINTS // num_classes)
    members = (np.flatnonzero(labels == k) for k in range(num_classes))
    picks = [
        m[np.linspace(0, len(m) - 1, min(most, len(m))).astype(int)] for m in members
    ]
    return np.concatenate(picks)


def _scaled(
    arrows: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scale the classifiers so that the longest reaches a little beyond the means."""
    longest = np.linalg.norm(np.nan_to_num(arrows), axis=1).max(initial=0.0)
    farthest = np.linalg.norm(np.nan_to_num(means), axis=1).max(initial=0.0)
    return arrows * (1.25 * farthest / longest if longest > 0 else 0.0)


def _frame(ax: Axes, content: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    """Set limits around the content in the proportions of the panel."""
    known = content[np.isfinite(content).all(axis=1)]
    low, high = known.min(axis=0), known.max(axis=0)
    # Room for the labels on all sides.
    scale = 1.25 * float(max((high - low) / np.array(_PANEL))) or 1.0
    middle, half = (low + high) / 2, scale * np.array(_PANEL) / 2
    ax.set_xlim(middle[0] - half[0], middle[0] + half[0])
    ax.set_ylim(middle[1] - half[1], middle[1] + half[1])
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.set_xlabel(f"first principal direction of the class means: {shares[0]:.0%}")
    ax.set_ylabel(f"second: {shares[1]:.0%}")
    ax.spines[:].set_visible(True)


def _draw_points(
    ax: Axes,
    points: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: dict[str, list[int]],
) -> None:
    for role, classes in groups.items():
        mine = points[np.isin(labels, classes)]
        ax.plot(
            *mine.T,
            MARKER[role],
            color=colour(role),
            markersize=3.2,
            markeredgewidth=0,
            alpha=0.4,
        )


def _draw_arrows(
    ax: Axes, arrows: NDArray[np.float64], groups: dict[str, list[int]]
) -> None:
    for role, classes in groups.items():
        look = {
            "arrowstyle": "-|>",
            "color": colour(role),
            "linewidth": 1.1,
            "alpha": 0.9,
        }
        for tip in arrows[classes[:_MOST_ARROWS]]:
            if np.isfinite(tip).all():
                ax.annotate(
                    "", tip, (0, 0), arrowprops=look | {"shrinkA": 0, "shrinkB": 0}
                )


def _draw_means(
    ax: Axes, means: NDArray[np.float64], groups: dict[str, list[int]]
) -> None:
    for role, classes in groups.items():
        ax.plot(
            *means[classes].T,
            MARKER[role],
            color=colour(role),
            markersize=9,
            markeredgecolor=colour("surface"),
            markeredgewidth=1.2,
            zorder=3,
        )


def _name_means(
    ax: Axes,
    means: NDArray[np.float64],
    arrows: NDArray[np.float64],
    labels: Sequence[str],
) -> None:
    """Write the names beside the means, where they cover nothing."""
    per_point = float(np.ptp(ax.get_xlim())) / _PANEL[0]
    places = [tuple(mean / per_point) for mean in means]
    marks = [*places, *(tuple(arrow / per_point) for arrow in arrows)]
    taken = [_Box.around(x, y, 12, 12) for x, y in marks if math.isfinite(x + y)]
    for (x, y), mean, label in zip(places, means, labels, strict=True):
        if math.isfinite(x + y):
            name = plain(label, 16)
            box = _free_box(x, y, 5.5 * len(name) + 4, taken)
            taken.append(box)
            _write_name(ax, name, mean, box.x - x, box.y - y)


@dataclass(frozen=True)
class _Box:
    """A rectangle in points, by its centre and half its size."""

    x: float
    y: float
    half_width: float
    half_height: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> _Box:
        return cls(x, y, width / 2, height / 2)

    def overlap(self, other: _Box) -> float:
        """Return the area that two rectangles share."""
        wide = _common(self.x, self.half_width, other.x, other.half_width)
        return wide * _common(self.y, self.half_height, other.y, other.half_height)


def _common(a: float, half_a: float, b: float, half_b: float) -> float:
    """Return the length that two intervals share."""
    return max(0.0, min(half_a + half_b - abs(a - b), 2 * min(half_a, half_b)))


def _free_box(x: float, y: float, width: float, taken: list[_Box]) -> _Box:
    """Return where a label covers least, outwards and near if it can be."""
    outwards = math.atan2(y, x)
    turns = (0, 0.5, -0.5, 1, -1, 1.6, -1.6, 2.3, -2.3, math.pi)
    tried = [
        _beside(x, y, width, distance, outwards + turn)
        for distance in (10, 19, 30, 42, 56)
        for turn in turns
    ]
    # `min` keeps the first of equals, and the nearest are tried first.
    return min(tried, key=lambda box: round(sum(box.overlap(other) for other in taken)))


def _beside(x: float, y: float, width: float, distance: float, angle: float) -> _Box:
    """Return a label's box at a distance from a mark, measured from the box's edge."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return _Box.around(
        x + cosine * (distance + width / 2), y + sine * (distance + 5), width, 11
    )


def _write_name(
    ax: Axes, name: str, mean: NDArray[np.float64], dx: float, dy: float
) -> None:
    far = math.hypot(dx, dy) > 30
    ax.annotate(
        name,
        (float(mean[0]), float(mean[1])),
        xytext=(dx, dy),
        textcoords="offset points",
        ha="center",
        va="center_baseline",
        fontsize="small",
        zorder=4,
        bbox={
            "boxstyle": "round,pad=0.1",
            "facecolor": colour("surface"),
            "edgecolor": "none",
            "alpha": 0.75,
        },
        arrowprops={"arrowstyle": "-", "color": colour("muted"), "linewidth": 0.6}
        if far
        else None,
    )
