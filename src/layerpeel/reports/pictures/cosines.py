"""The cosines between classifiers, such as measured beside predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from layerpeel._figures import (
    Diverging,
    cell_names,
    colour,
    colour_bar,
    figure,
    heatmap,
    style,
)
from layerpeel.geometry import LEAST_REACH, ClassGroups
from layerpeel.reports.pictures._groups import array, check_lengths

# Beyond this many rows a cell is smaller than what a screen resolves, and the size of
# the file grows with their square.
_MOST_CELLS = 100
# In points: a matrix, what is between two and around them, a character of a label.
_SIDE, _GAP, _ABOVE, _KEY, _CHARACTER, _NOTE = 240.0, 14.0, 36.0, 62.0, 5.0, 16.0


@style()
def cosine_matrices(
    shown: Mapping[str, Float64[Tensor, "K K"]],
    labels: Sequence[str],
    groups: ClassGroups,
    ideal: float | None = None,
) -> Figure:
    r"""Draw cosines between classifiers side by side, such as measured and predicted.

    Majority classes come first, then minority classes, then classes never seen. The
    colour says how far a pair is from the balanced value, and to which side. With more
    than 100 classes a cell is the mean over the pairs of several neighbouring classes
    of one group.

    Args:
        shown: Cosines by what they are called, each with shape :math:`(K, K)`; NaN
            where undefined. All have one colour scale.
        labels: The names of the classes.
        groups: Which classes are the majority and which the minority.
        ideal: The balanced value; :math:`-1/(K-1)`, that of the simplex ETF, when
            omitted.

    Returns:
        The figure.

    Raises:
        ShapeError: If the numbers of classes differ.
    """
    num_classes = len(labels)
    check_lengths(num_classes, shown)
    ideal = -1 / max(1, num_classes - 1) if ideal is None else ideal
    order, edges = _grouped_order(groups, num_classes), _cell_edges(groups, num_classes)
    cells = {
        name: _cell_means(array(matrix)[np.ix_(order, order)], edges)
        for name, matrix in shown.items()
    }
    return _draw(cells, [labels[k] for k in order], edges, groups, ideal)


def _draw(
    cells: dict[str, NDArray[np.float64]],
    labels: Sequence[str],
    edges: Sequence[int],
    groups: ClassGroups,
    ideal: float,
) -> Figure:
    scale = _scale_over(list(cells.values()), ideal)
    # A cell of one class on the diagonal is the cosine of a classifier with itself.
    itself = np.diag(np.diff(edges) == 1)
    notes = _notes(list(cells.values()), itself, len(edges) <= len(labels))
    fig = _figure(len(cells), labels, _NOTE if notes else 0.0)
    for ax, (name, means) in zip(fig.axes, cells.items(), strict=True):
        heatmap(ax, means, labels, scale, edges=edges, muted=itself)
        ax.set_title(name, pad=8 if groups.balanced else 22)
        ax.tick_params(labelleft=ax is fig.axes[0])
        _mark_groups(ax, groups)
    fig.axes[0].set_xlabel("; ".join(notes), loc="left")
    colour_bar(fig.axes[-1], scale, "further\napart", "balanced", "closer")
    return fig


def _notes(
    matrices: list[NDArray[np.float64]], itself: NDArray[np.bool_], coarse: bool
) -> list[str]:
    """Say what the cells do not say themselves."""
    undefined = any(bool(np.isnan(matrix[~itself]).any()) for matrix in matrices)
    meanings = {
        "a cell is the mean over several classes": coarse,
        "hatched: undefined": undefined,
    }
    return [meaning for meaning, applies in meanings.items() if applies]


def _figure(count: int, labels: Sequence[str], below: float) -> Figure:
    """Return square axes of one size, with as much room around them as labels need."""
    longest = max(len(name) for name in cell_names(labels).values())
    beside = 14 + _CHARACTER * longest
    width = beside + count * (_SIDE + _GAP) + _KEY
    height = _ABOVE + _SIDE + beside + below
    fig = figure(width, height, arranged=False)
    starts = [beside + i * (_SIDE + _GAP) for i in range(count)]
    floor, size = (beside + below) / height, (_SIDE / width, _SIDE / height)
    for start in starts:
        fig.add_axes((start / width, floor, *size))
    return fig


def _grouped_order(groups: ClassGroups, num_classes: int) -> list[int]:
    known = [*groups.majority, *groups.minority]
    return known + sorted(set(range(num_classes)).difference(known))


def _cell_edges(groups: ClassGroups, num_classes: int) -> list[int]:
    """Cut the ordered classes into cells that stay within a group."""
    size = -(-num_classes // _MOST_CELLS)
    cut = len(groups.majority)
    bounds = [0, cut, cut + len(groups.minority), num_classes]
    starts = [range(a, b, size) for a, b in pairwise(bounds)]
    return [*(start for run in starts for start in run), num_classes]


def _cell_means(
    matrix: NDArray[np.float64], edges: Sequence[int]
) -> NDArray[np.float64]:
    """Average over cells, leaving out the diagonal and what is undefined."""
    values = matrix.copy()
    np.fill_diagonal(values, np.nan)
    seen = np.isfinite(values)
    sums = _block_sums(np.where(seen, values, 0.0), edges)
    counts = _block_sums(seen.astype(np.float64), edges)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _block_sums(
    matrix: NDArray[np.float64], edges: Sequence[int]
) -> NDArray[np.float64]:
    rows = np.add.reduceat(matrix, edges[:-1], axis=0)
    return np.asarray(np.add.reduceat(rows, edges[:-1], axis=1))


def _scale_over(matrices: list[NDArray[np.float64]], ideal: float) -> Diverging:
    """Reach as far as the data do, on both sides, but never beyond a cosine."""
    values = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    reach = max(LEAST_REACH, float(np.abs(values - ideal).max(initial=0.0)))
    return Diverging(ideal, max(-1.0, ideal - reach), min(1.0, ideal + reach))


def _mark_groups(ax: Axes, groups: ClassGroups) -> None:
    """Draw the boundary between the groups, and name them along the edge."""
    if groups.balanced:
        return
    cut = len(groups.majority)
    ax.axhline(cut, color=colour("ink"), linewidth=1.0)
    ax.axvline(cut, color=colour("ink"), linewidth=1.0)
    _name_group(ax, "majority", 0, cut)
    _name_group(ax, "minority", cut, cut + len(groups.minority))


def _name_group(ax: Axes, role: str, start: int, stop: int) -> None:
    along_edge = ax.get_xaxis_transform()
    bar = 1.018
    ax.plot(
        [start, stop],
        [bar, bar],
        color=colour(role),
        transform=along_edge,
        clip_on=False,
        linewidth=3,
        solid_capstyle="butt",
    )
    ax.annotate(
        role,
        (start if role == "majority" else stop, bar),
        xycoords=along_edge,
        xytext=(0, 4),
        textcoords="offset points",
        ha="left" if role == "majority" else "right",
        fontsize="small",
        color=colour(role),
    )
