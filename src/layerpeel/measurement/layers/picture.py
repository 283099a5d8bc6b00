"""The picture of a profile: collapse, ranks and nonlinearities over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from layerpeel._checks import one_of
from layerpeel._figures import axes, colour, figure, plain, thinned

PANELS: Mapping[str, str] = MappingProxyType(
    {
        "collapse": "NC1 quotient and CDNV",
        "ranks": "numerical and effective rank, participation ratio, and width",
        "units": "linearity and on/off entropy of nonlinearities",
    }
)
"""What a profile can be drawn as, by name."""

# Above it, a layer is effectively linear to the authors of the measure.
_EFFECTIVELY_LINEAR = 0.99
_MOST_NAMES = 40
_SHARES = (1.25, 1.25, 1.0)

Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """What is drawn of a profile.

    Attributes:
        paths: Paths of the layers, in the order of execution.
        columns: Their metrics, by name.
        widths: Their numbers of features.
        num_classes: The number of classes.
    """

    paths: Sequence[str]
    columns: Mapping[str, Column]
    widths: Column
    num_classes: int


def draw_profile(
    ax: Axes | None, curves: Curves, panel: str | None
) -> tuple[Figure, Axes]:
    """Draw one panel, or all of them one above another.

    Args:
        ax: Where to draw one panel; a figure of its own by default.
        curves: What to draw.
        panel: A key of ``PANELS``. When omitted, all of them, or with ``ax`` the first.

    Returns:
        The figure, and the axes of the first panel.

    Raises:
        ValueError: If there is no such panel.
    """
    if panel is not None:
        one_of("panel", panel, PANELS)
    width = float(np.clip(210 + 15 * len(curves.paths), 430, 900))
    if ax is None and panel is None:
        return _draw_all(curves, width)
    fig, ax = axes(ax, width=width)
    _draw(ax, curves, panel or "collapse")
    _name_layers(ax, curves.paths)
    return fig, ax


def _draw_all(curves: Curves, width: float) -> tuple[Figure, Axes]:
    fig = figure(width, 520)
    grid = fig.add_gridspec(len(PANELS), 1, height_ratios=_SHARES)
    first = fig.add_subplot(grid[0])
    panels = [first, *(fig.add_subplot(grid[i], sharex=first) for i in (1, 2))]
    for ax, panel in zip(panels, PANELS, strict=True):
        _draw(ax, curves, panel)
        ax.tick_params(labelbottom=ax is panels[-1])
    _name_layers(panels[-1], curves.paths)
    fig.align_ylabels(panels)
    return fig, first


def _draw(ax: Axes, curves: Curves, panel: str) -> None:
    draw = {"collapse": _collapse, "ranks": _ranks, "units": _units}[panel]
    # Nonlinearities are shaded, so that the eye finds the same layer in all panels.
    for place in np.flatnonzero(~np.isnan(curves.columns["on_off_entropy"])):
        ax.axvspan(place - 0.5, place + 0.5, color=colour("grid"), alpha=0.45, lw=0)
    ax.grid(axis="x", visible=False)
    draw(ax, curves)
    ax.set_xlim(-0.6, len(curves.paths) - 0.4)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), borderaxespad=0.2)


def _collapse(ax: Axes, curves: Curves) -> None:
    _line(ax, curves.columns["nc1_quotient"], "NC1 quotient", "measured", "-o")
    _line(ax, curves.columns["cdnv"], "CDNV", "majority", "--s")
    _logarithmic(ax, curves.columns["nc1_quotient"], curves.columns["cdnv"])
    ax.set_ylabel("variability")


def _ranks(ax: Axes, curves: Curves) -> None:
    places, columns = np.arange(len(curves.widths)), curves.columns
    ax.step(
        places, curves.widths, where="mid", color=colour("muted"), lw=1, label="width"
    )
    _line(ax, columns["numerical_rank"], "numerical rank", "measured", "-o")
    _line(ax, columns["effective_rank"], "effective rank", "majority", "--s")
    _line(ax, columns["participation_ratio"], "participation ratio", "minority", ":^")
    ax.set_yscale("log")
    ax.set_ylim(0.8, 1.5 * float(curves.widths.max()))
    if curves.num_classes > 2:
        _level(ax, curves.num_classes - 1, f"K − 1 = {curves.num_classes - 1}")
    ax.set_ylabel("dimensions")


def _units(ax: Axes, curves: Curves) -> None:
    lowest, middle = (curves.columns[n] for n in ("linearity", "median_linearity"))
    places = np.arange(len(lowest))
    ax.vlines(places, lowest, middle, color=colour("measured"), linewidth=1.2)
    _line(ax, middle, "linearity, median unit", "measured", "_")
    _line(ax, lowest, "linearity, least unit", "measured", "o")
    _line(ax, curves.columns["on_off_entropy"], "on/off entropy", "majority", "s")
    _level(ax, _EFFECTIVELY_LINEAR, f"effectively linear > {_EFFECTIVELY_LINEAR}")
    ax.set(ylim=(-0.05, 1.08), ylabel="nonlinearities")


def _line(ax: Axes, values: Column, label: str, role: str, look: str) -> None:
    finite = np.where(np.isfinite(values), values, np.nan)
    ax.plot(finite, look, color=colour(role), markersize=4, label=label)


def _level(ax: Axes, value: float, label: str) -> None:
    """Draw a line to compare with; its name is in the key, where no curve hides it."""
    look = (0, (5, 2.5))
    ax.axhline(
        value, color=colour("predicted"), linestyle=look, linewidth=1.4, label=label
    )


def _logarithmic(ax: Axes, *columns: Column) -> None:
    """Make the vertical axis logarithmic, if anything is above zero."""
    values = np.concatenate(columns)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    ax.set_yscale("log")
    # Within a decade Matplotlib would label minor ticks only: whole decades are shown.
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    ax.set_ylim(10.0**low / 1.3, 10.0 ** max(high, low + 1) * 1.3)
    ax.yaxis.set_minor_locator(NullLocator())


def _name_layers(ax: Axes, paths: Sequence[str]) -> None:
    names = {
        i: plain(paths[i] or "(model)", 22) for i in thinned(len(paths), _MOST_NAMES)
    }
    ax.set_xticks(list(names), list(names.values()), rotation=90)
    ax.set_xlabel("layer, in the order of execution")
