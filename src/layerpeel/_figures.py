"""The one look of all plots: what every picture of the package is drawn with.

**The contract of** ``value.plot(ax=None) -> (fig, ax)``. Every value that can be
plotted has this method. It draws into ``ax`` when given one, and into a figure of its
own when not; it returns both, always; it never shows, closes or saves anything, and
touches neither ``pyplot`` nor the caller's ``rcParams``. It is written so::

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        fig, ax = axes(ax)
        ax.plot(self.steps, self.values, color=colour("measured"))
        line_at(ax, self.optimum, "predicted optimum")
        return fig, ax

Rules for everything drawn: colours come from :func:`colour`, by role, so that pages can
re-colour them for dark backgrounds; names of classes go through :func:`plain`, so that
a dollar sign stays a dollar sign; what differs in colour differs in shape or label too.
Sizes are in points, 72 to the inch, which is also the unit of the SVG.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from layerpeel._checks import one_of
from layerpeel._files import write_whole
from layerpeel._look import (
    RAMP,
    STEPS,
    STRONG,
    colour,
    plain,
    printable,
    style,
    variables,
)
from layerpeel._svg import CELLS, slug, to_svg

__all__ = [
    "Diverging",
    "axes",
    "cell_names",
    "colour",
    "colour_bar",
    "figure",
    "heatmap",
    "line_at",
    "plain",
    "printable",
    "save",
    "slug",
    "style",
    "thinned",
    "to_svg",
    "variables",
]

WIDTH, HEIGHT = 390.0, 270.0

# Metadata that differs between runs or machines, by file type.
_METADATA: dict[str, dict[str, None]] = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def figure(
    width: float = WIDTH, height: float = HEIGHT, *, arranged: bool = True
) -> Figure:
    """Return an empty figure, known to no global state.

    Args:
        width: In points.
        height: In points.
        arranged: Whether Matplotlib arranges the axes; otherwise the caller does.
    """
    with style():
        fig = Figure(figsize=(width / 72, height / 72))
        fig.set_layout_engine("constrained" if arranged else "none")
        return fig


def axes(
    ax: Axes | None = None, *, width: float = WIDTH, height: float = HEIGHT
) -> tuple[Figure, Axes]:
    """Return the axes to draw in, and their figure.

    Args:
        ax: The caller's axes; left as they are.
        width: Of a new figure, in points, when there are none.
        height: Of a new figure, in points, when there are none.

    Raises:
        ValueError: If ``ax`` has been removed from its figure.
    """
    if ax is None:
        with style():
            fig = figure(width, height)
            return fig, fig.add_subplot()
    owner = ax.get_figure(root=True)
    if owner is None:
        raise ValueError("`ax` must belong to a figure; it was removed from its own.")
    return owner, ax


def line_at(
    ax: Axes,
    value: float,
    label: str,
    *,
    vertical: bool = False,
    role: str = "predicted",
) -> None:
    """Draw a labelled line across the axes, for instance at a predicted optimum.

    Args:
        ax: The axes.
        value: Where, in data coordinates; nothing is drawn for NaN.
        label: Written along the line.
        vertical: Whether the value is on the horizontal axis.
        role: The role whose colour the line has.
    """
    if not np.isfinite(value):
        return
    draw = ax.axvline if vertical else ax.axhline
    draw(value, color=colour(role), linestyle=(0, (5, 2.5)), linewidth=1.4, zorder=1.5)
    ax.annotate(
        plain(label, 48),
        (value, 1) if vertical else (1, value),
        xycoords=ax.get_xaxis_transform() if vertical else ax.get_yaxis_transform(),
        xytext=(4, -2) if vertical else (-2, 3),
        textcoords="offset points",
        ha="left" if vertical else "right",
        va="top" if vertical else "bottom",
        color=colour(role),
        fontsize="small",
    )


@dataclass(frozen=True)
class Diverging:
    """A colour scale that says how far a value is from a centre, and to which side.

    Equal distances from the centre are equally strong on both sides.

    Attributes:
        centre: The value next to the background in colour.
        lowest: The lowest value of the scale.
        highest: The highest value of the scale.
    """

    centre: float
    lowest: float
    highest: float

    @property
    def reach(self) -> float:
        """The distance from the centre that has full strength."""
        return max(self.highest - self.centre, self.centre - self.lowest)

    def steps(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the step of the colour ramp of each value, -1 for NaN."""
        share = np.clip((values - self.centre) / self.reach, -1, 1)
        steps = np.round(STEPS * (1 + np.nan_to_num(share))).astype(np.int64)
        return np.where(np.isnan(values), -1, steps)


def heatmap(
    ax: Axes,
    matrix: NDArray[np.float64],
    labels: Sequence[str],
    scale: Diverging,
    *,
    edges: Sequence[int] | None = None,
    muted: NDArray[np.bool_] | None = None,
    numbers: bool | None = None,
) -> None:
    """Draw a square matrix as cells, first row on top; NaN cells are hatched.

    The cells are shapes, not pixels: neighbours of one colour become one rectangle, and
    all rectangles of one colour one path, so that a large matrix stays a small file.

    Args:
        ax: The axes.
        matrix: The values, with shape :math:`(m, m)`.
        labels: The names of the :math:`K` classes; thinned to what fits.
        scale: The colours.
        edges: Where the cells begin and end in units of classes, from 0 to :math:`K`,
            when a cell stands for several classes.
        muted: The cells that say nothing, such as a diagonal of ones; left grey.
        numbers: Whether cells carry their value; when omitted, up to 12 rows do.
    """
    bounds = np.arange(len(matrix) + 1) if edges is None else np.asarray(edges)
    steps = scale.steps(matrix)
    if muted is not None:
        steps[muted] = -2
    for step in np.unique(steps):
        _draw_cells(ax, steps == step, bounds, int(step))
    if len(matrix) <= 12 if numbers is None else numbers:
        _write_numbers(ax, matrix, steps)
    ax.set(xlim=(0, bounds[-1]), ylim=(bounds[-1], 0), aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    _label_cells(ax, labels)


def _draw_cells(
    ax: Axes, where: NDArray[np.bool_], bounds: NDArray[np.int64], step: int
) -> None:
    """Draw the cells of one colour, or the undefined ones, or the muted ones."""
    look = {
        -1: {"facecolor": "none", "edgecolor": colour("muted"), "hatch": "////"},
        -2: {"facecolor": colour("line"), "edgecolor": "none"},
    }.get(step, {"facecolor": RAMP[step][0], "edgecolor": "none"})
    patch = PathPatch(_rectangles(where, bounds), linewidth=0, zorder=1, **look)
    patch.set_gid(f"{CELLS}-{step}")
    patch.set_antialiased(False)
    ax.add_artist(patch)  # unlike `add_patch`, without a search for its extent


def _rectangles(where: NDArray[np.bool_], bounds: NDArray[np.int64]) -> Outline:
    """Outline the marked cells, one rectangle per run within a row."""
    padded = np.pad(where, ((0, 0), (1, 1))).astype(int)
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    ends = np.nonzero(np.diff(padded, axis=1) == -1)[1]
    left, right, top, bottom = (
        bounds[starts],
        bounds[ends],
        bounds[rows],
        bounds[rows + 1],
    )
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    vertices = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
    codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY] * len(rows)
    return Outline(vertices.reshape(-1, 2).astype(float), codes)


def _write_numbers(
    ax: Axes, matrix: NDArray[np.float64], steps: NDArray[np.int64]
) -> None:
    """Write values into their cells: in ink or, where they are strong, as a cut-out."""
    for (row, column), step in np.ndenumerate(steps):
        if step >= 0:
            strong = abs(step - STEPS) > STRONG
            ax.text(
                column + 0.5,
                row + 0.5,
                _short(float(matrix[row, column])),
                color=colour("surface" if strong else "ink"),
                fontsize=min(10.0, 75 / len(matrix)),
                ha="center",
                va="center_baseline",
            )


def _short(value: float) -> str:
    """Write a value of at most one in size with two decimals and no leading zero."""
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
    return text.replace("-", "−")


def _label_cells(ax: Axes, labels: Sequence[str]) -> None:
    names = cell_names(labels)
    places = [i + 0.5 for i in names]
    ax.set_yticks(places, list(names.values()))
    upright = all(len(name) <= 2 for name in names.values())
    ax.set_xticks(places, list(names.values()), rotation=0 if upright else 90)


def cell_names(labels: Sequence[str]) -> dict[int, str]:
    """Return the names a heat map has room for, by the index of their class."""
    return {i: plain(labels[i], 14) for i in thinned(len(labels), 24)}


def thinned(count: int, most: int) -> range:
    """Return evenly spaced indices, at most ``most`` of them, the first included."""
    return range(0, count, max(1, -(-count // most)))


def colour_bar(ax: Axes, scale: Diverging, low: str, centre: str, high: str) -> None:
    """Draw the key of a colour scale to the right of a heat map.

    Args:
        ax: The axes of the heat map.
        scale: The colours.
        low: What the lower end means.
        centre: What the centre means.
        high: What the upper end means.
    """
    bar = ax.inset_axes((1.05, 0.0, 0.045, 1.0))
    rungs = np.linspace(-scale.reach, scale.reach, 2 * STEPS + 2) + scale.centre
    for step, (bottom, top) in enumerate(pairwise(rungs)):
        rung = bar.axhspan(bottom, top, color=RAMP[step][0], linewidth=0)
        rung.set_gid(f"{CELLS}-bar-{step}")
    bar.set(ylim=(scale.lowest, scale.highest), xticks=[])
    bar.grid(False)
    bar.spines[:].set_visible(False)
    bar.yaxis.tick_right()
    meanings = {scale.lowest: low, scale.centre: centre, scale.highest: high}
    bar.set_yticks(list(meanings), _keys(meanings, scale.reach))


def _keys(meanings: dict[float, str], reach: float) -> list[str]:
    decimals = 2 if reach > 0.2 else 3
    return [
        f"{value:.{decimals}f}\n{meaning}".replace("-", "−")
        for value, meaning in meanings.items()
    ]


def save(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure so that the same figure gives the same bytes.

    Args:
        fig: The figure.
        path: A file ending in ``.svg``, ``.png`` or ``.pdf``.

    Returns:
        The path written.

    Raises:
        ValueError: If the suffix is another one.
        OSError: If the file cannot be written.
    """
    suffix = one_of("the suffix", Path(path).suffix.lower(), _METADATA)
    buffer = io.BytesIO()
    with style():
        fig.savefig(buffer, format=suffix[1:], metadata=_METADATA[suffix], dpi=200)
    return write_whole(path, buffer.getvalue())
