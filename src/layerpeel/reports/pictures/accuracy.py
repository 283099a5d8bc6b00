"""The accuracy of each class, such as on training samples and on held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from layerpeel._figures import colour, figure, plain, style, thinned
from layerpeel.reports.pictures._groups import (
    MARKER,
    array,
    by_role,
    check_lengths,
    group_legend,
    legend,
    mark,
)

# Up to this many classes each has a line with its name and its count.
_MOST_LINES = 40
_LINE, _HIGHEST = 15.0, 480.0
# Up to this many classes the two accuracies of a class are joined.
_MOST_JOINED = 100
# Where classes without samples are marked: beside the axis, not at zero.
_UNDEFINED = -0.045


@style()
def class_accuracy(
    shown: Mapping[str, Float64[Tensor, " K"]],
    labels: Sequence[str],
    counts: Float64[Tensor, " K"],
    minority: Sequence[int],
) -> Figure:
    """Draw the accuracy of each class, the most frequent class on top.

    Args:
        shown: Accuracies by what they are measured on, such as ``"training"`` and
            ``"held out"``, each with shape :math:`(K,)`; NaN for classes without
            samples. The last one is drawn full, and those before it open.
        labels: The names of the classes.
        counts: The number of training samples, with shape :math:`(K,)`.
        minority: The indices of the minority classes.

    Returns:
        The figure.

    Raises:
        ShapeError: If the numbers of classes differ.
    """
    check_lengths(len(labels), shown)
    check_lengths(len(labels), {"counts": counts})
    order = np.argsort(-array(counts), kind="stable")
    lines = np.argsort(order)
    fig = figure(height=75 + min(_LINE * len(labels), _HIGHEST))
    ax = fig.add_subplot()
    for role, classes in by_role(len(labels), minority).items():
        values = [array(accuracy)[classes] for accuracy in shown.values()]
        _draw(ax, role, lines[classes], values, len(labels))
    _name_lines(ax, [labels[k] for k in order], array(counts)[order])
    _accuracy_axis(ax)
    legend(fig, group_legend(minority) | _entries(shown))
    return fig


def _draw(
    ax: Axes,
    role: str,
    lines: NDArray[np.int64],
    values: list[NDArray[np.float64]],
    num_classes: int,
) -> None:
    """Draw the last accuracy of every class as a full mark, and the others as open."""
    size = 6.0 if num_classes <= _MOST_LINES else 3.0
    if num_classes <= _MOST_JOINED:
        lowest, highest = np.min(values, axis=0), np.max(values, axis=0)
        ax.hlines(lines, lowest, highest, color=colour(role), linewidth=1.2, alpha=0.6)
    for accuracy in values:
        known = np.isfinite(accuracy)
        ax.plot(
            accuracy[known],
            lines[known],
            MARKER[role],
            color=colour(role),
            markerfacecolor=colour(role if accuracy is values[-1] else "surface"),
            markersize=size,
            zorder=2.5,
            clip_on=False,
        )
        _mark_undefined(ax, lines[~known], size)


def _mark_undefined(ax: Axes, lines: NDArray[np.int64], size: float) -> None:
    places = np.full(len(lines), _UNDEFINED)
    ax.plot(places, lines, "x", color=colour("muted"), markersize=size - 1)


def _name_lines(ax: Axes, labels: Sequence[str], counts: NDArray[np.float64]) -> None:
    """Name the lines on the left and give their counts on the right, where they fit."""
    shown = thinned(len(labels), _MOST_LINES)
    ax.set_yticks(list(shown), [plain(labels[i], 18) for i in shown])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(False, axis="y")
    for i in shown:
        ax.annotate(
            f"{counts[i]:g}",
            (1.13, i),
            xycoords=ax.get_yaxis_transform(),
            ha="right",
            va="center_baseline",
            fontsize="small",
            color=colour("muted"),
        )


def _accuracy_axis(ax: Axes) -> None:
    ax.set_xlim(-0.08, 1.0)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel("recall; on the right, the number of training samples")


def _entries(shown: Mapping[str, Tensor]) -> dict[str, Line2D]:
    *before, last = shown
    entries = {}
    if before:
        for name in before:
            open_mark = mark("o", "measured", markerfacecolor=colour("surface"))
            entries[plain(name)] = open_mark
        entries[plain(last)] = mark("o", "measured")
    if any(bool(accuracy.isnan().any()) for accuracy in shown.values()):
        entries["no samples"] = mark("x", "muted", size=5)
    return entries
