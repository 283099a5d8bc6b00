"""The picture of clones over the course of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from layerpeel._checks import listed, one_of
from layerpeel._figures import axes, colour, figure
from layerpeel.measurement.tracking.clones import FULL_ERROR, PREFIX
from layerpeel.measurement.tracking.series import Series

PANELS: Mapping[str, str] = MappingProxyType(
    {
        "reconstruction": "R²",
        "residuals": "residual |correlation|",
        "errors": "error",
    }
)
"""Panels by name, with what their vertical axes say."""

_ROLES = ("majority", "minority", "ideal", "predicted", "muted")
_MARKERS = ("o", "^", "s", "D", "v")
_MOST_MARKERS = 12

Recorded = Mapping[str, Series]


def draw_clones(
    ax: Axes | None,
    recorded: Recorded,
    widths: str | Sequence[int],
    panel: str | None,
) -> tuple[Figure, Axes]:
    """Draw one panel, or all of them one above another.

    Args:
        ax: Where to draw one panel; a figure of its own by default.
        recorded: Metrics over time by name.
        widths: Widths of chunks; ``"all"`` for all that were followed.
        panel: A key of ``PANELS``. When omitted, all of them, or with ``ax`` the first;
            where no errors were recorded there is no panel of errors among them.

    Returns:
        The figure, and the axes of the first panel.

    Raises:
        KeyError: If a width was not followed, or no errors were recorded.
        ValueError: If there is no such panel.
    """
    chosen = _widths(recorded, widths)
    names = [p for p in PANELS if p != "errors" or FULL_ERROR in recorded]
    if panel is not None:
        names = [one_of("panel", panel, PANELS)]
        if panel == "errors" and FULL_ERROR not in recorded:
            raise KeyError(
                "No errors of chunks were recorded; evaluation records them."
            )
    if ax is None and panel is None:
        return _draw_all(recorded, chosen, names)
    fig, ax = axes(ax, width=460)
    _draw(ax, recorded, chosen, names[0])
    _finish(ax)
    return fig, ax


def _widths(recorded: Recorded, widths: str | Sequence[int]) -> list[int]:
    """Return widths of chunks that were followed."""
    parts = [name.split("/") for name in recorded if name.startswith(PREFIX)]
    known = sorted({int(part[1]) for part in parts if part[1].isdigit()})
    if isinstance(widths, str):
        one_of("clones", widths, ("all",))
        widths = known
    missing = [w for w in widths if w not in known]
    if missing or not known:
        raise KeyError(
            f"Chunks of {listed(missing) or 'any width'} were not followed; there are "
            f"{listed(known) or 'none'}. Pass `clones=` to the tracker."
        )
    return list(widths)


def _draw_all(
    recorded: Recorded, widths: list[int], names: list[str]
) -> tuple[Figure, Axes]:
    fig = figure(470, 150 * len(names) + 20)
    grid = fig.add_gridspec(len(names), 1)
    first = fig.add_subplot(grid[0])
    rest = [fig.add_subplot(grid[i], sharex=first) for i in range(1, len(names))]
    every = [first, *rest]
    for ax, name in zip(every, names, strict=True):
        _draw(ax, recorded, widths, name)
        ax.tick_params(labelbottom=ax is every[-1])
    _finish(every[-1])
    fig.align_ylabels(every)
    return fig, first


def _draw(ax: Axes, recorded: Recorded, widths: list[int], panel: str) -> None:
    draws: dict[str, Callable[[Axes, Recorded, list[int]], None]] = {
        "reconstruction": _reconstruction,
        "residuals": _residuals,
        "errors": _errors,
    }
    draws[panel](ax, recorded, widths)
    ax.set_ylabel(PANELS[panel])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), borderaxespad=0.2)


def _reconstruction(ax: Axes, recorded: Recorded, widths: list[int]) -> None:
    for index, w in enumerate(widths):
        series = recorded[f"{PREFIX}{w}/r_squared"]
        spread = recorded.get(f"{PREFIX}{w}/r_squared_spread")
        _line(ax, index, series, f"{w} neurons", spread=spread)


def _residuals(ax: Axes, recorded: Recorded, widths: list[int]) -> None:
    for index, w in enumerate(widths):
        series = recorded[f"{PREFIX}{w}/residual_correlation"]
        spread = recorded.get(f"{PREFIX}{w}/residual_correlation_spread")
        _line(ax, index, series, f"{w} neurons", spread=spread)


def _errors(ax: Axes, recorded: Recorded, widths: list[int]) -> None:
    for index, w in enumerate(widths):
        for reading, dashes in (("raw", "-"), ("folded", "--")):
            series = recorded[f"{PREFIX}{w}/{reading}_error"]
            _line(ax, index, series, f"{w}, {reading}", dashes)
    full = recorded[FULL_ERROR]
    ax.plot(
        full.steps,
        full.values,
        color=colour("measured"),
        linewidth=2.2,
        label="the network",
        zorder=3,
    )


def _line(
    ax: Axes,
    index: int,
    series: Series,
    label: str,
    dashes: str = "-",
    spread: Series | None = None,
) -> None:
    """Draw the mean over chunks, with one standard deviation to either side if given."""
    tint = colour(_ROLES[index % len(_ROLES)])
    # A sixth line has the colour of the first one, and another mark.
    mark = _MARKERS[(index + index // len(_ROLES)) % len(_MARKERS)]
    if spread is not None:
        wide = np.nan_to_num(spread.values)
        low, high = series.values - wide, series.values + wide
        ax.fill_between(series.steps, low, high, color=tint, alpha=0.15, linewidth=0)
    ax.plot(
        series.steps,
        series.values,
        dashes,
        color=tint,
        label=label,
        marker=mark,
        markersize=4,
        markevery=max(1, -(-len(series.steps) // _MOST_MARKERS)),
    )


def _finish(ax: Axes) -> None:
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
