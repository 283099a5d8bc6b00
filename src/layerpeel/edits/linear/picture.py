"""The picture of linearity: correlations of all neurons, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerpeel._figures import axes, colour, line_at, plain, thinned
from layerpeel.edits.linear.layer_linearity import LayerLinearity

# Above it, a layer is effectively linear to the authors of the measure.
_EFFECTIVELY_LINEAR = 0.99
_MOST_NAMES = 40


def draw_linearity(
    ax: Axes | None, rows: Sequence[LayerLinearity]
) -> tuple[Figure, Axes]:
    """Draw the least and the median correlation of each layer.

    Args:
        ax: Where to draw; a figure of its own by default.
        rows: The layers, at least one.

    Returns:
        The figure and the axes.
    """
    fig, ax = axes(ax, width=float(np.clip(210 + 22 * len(rows), 390, 900)))
    low = np.array([row.minimal_correlation for row in rows])
    middle = np.array([_median(row) for row in rows])
    places, exact = np.arange(len(rows)), np.array([row.exact for row in rows])
    ax.vlines(places, low, middle, color=colour("measured"), linewidth=1.2)
    ax.plot(middle, "_", color=colour("measured"), label="median neuron")
    ax.plot(low, "o", color=colour("measured"), markersize=4, label="least neuron")
    ax.plot(
        places[exact], np.where(np.isnan(low), 1.0, low)[exact], "s", markersize=9,
        markerfacecolor="none", color=colour("ideal"), label="exactly linear",
    )  # fmt: skip
    line_at(ax, _EFFECTIVELY_LINEAR, "effectively linear > 0.99")
    names = {i: plain(rows[i].path, 22) for i in thinned(len(rows), _MOST_NAMES)}
    ax.set_xticks(list(names), list(names.values()), rotation=90)
    ax.set(xlim=(-0.6, len(rows) - 0.4), ylim=(-0.05, 1.08), ylabel="|correlation|")
    ax.set_xlabel("layer, in the order of execution")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), borderaxespad=0.2)
    return fig, ax


def _median(row: LayerLinearity) -> float:
    counted = row.correlation[~row.constant & ~row.idle]
    return float(counted.median()) if len(counted) else float("nan")
