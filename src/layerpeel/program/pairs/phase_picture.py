"""The picture of a phase diagram: a map of cosines with its two borders."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from scipy.ndimage import distance_transform_edt

from layerpeel._figures import Diverging, axes, colour, colour_bar
from layerpeel._look import RAMP, STEPS
from layerpeel.geometry import etf_cosine
from layerpeel.program.pairs.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)

Values = Float64[np.ndarray, " n"]

# In points. The map is wider than high: ratios span more decades than energies.
_WIDTH, _HEIGHT = 470.0, 320.0
# A phase whose roomiest place is closer than this to another, in shares of the axes, has
# no room for its name.
_LEAST_ROOM = 0.06
# Borders are drawn through this many energies; ratios beyond any axis stop growing.
_BORDER_POINTS, _LARGEST_LOG = 300, 600.0
# How far beyond the axes a painted area may go, in units of their width.
_BEYOND = 3.0


def draw_phases(
    ax: Axes | None,
    imbalance: Float64[np.ndarray, " r"],
    energy: Float64[np.ndarray, " e"],
    cosine: Float64[np.ndarray, "e r"],
    sizes: tuple[int, int],
) -> tuple[Figure, Axes]:
    """Draw minority cosines over ratio and energy.

    Args:
        ax: Where to draw; a figure of its own when omitted.
        imbalance: The ratios, at least two.
        energy: The products of energies, at least two.
        cosine: The cosines; NaN where the minority has vanished.
        sizes: The numbers of majority and minority classes.

    Returns:
        The figure and the axes.
    """
    fig, ax = axes(ax, width=_WIDTH, height=_HEIGHT)
    balanced = etf_cosine(sum(sizes))
    scale = Diverging(balanced, balanced, 1.0)
    ax.set(xscale="log", yscale="log")
    ax.set(xlim=imbalance[[0, -1]], ylim=energy[[0, -1]])
    ax.grid(False)
    _paint_cosines(ax, imbalance, energy, cosine, sizes, scale)
    _paint_phases(ax, energy, sizes)
    _name_phases(ax, cosine)
    ax.set_xlabel("imbalance ratio: majority to minority count")
    ax.set_ylabel("product of energies $E_W E_H$")
    ax.set_title(
        f"cosine between minority classifiers, {sizes[0]} + {sizes[1]} classes"
    )
    colour_bar(ax, scale, "", "balanced", "equal")
    return fig, ax


def _paint_cosines(
    ax: Axes,
    imbalance: np.ndarray,
    energy: np.ndarray,
    cosine: np.ndarray,
    sizes: tuple[int, int],
    scale: Diverging,
) -> None:
    """Paint the steps of the colour ramp over one another, from the centre up.

    Cosines grow with the ratio, so each step is what lies right of a curve. Between the
    ratios of the grid the curve is interpolated, up to where the cosine is one.
    """
    rungs = scale.centre + (np.arange(STEPS + 1) - 0.5) / (STEPS + 0.5) * scale.reach
    ax.set_facecolor(RAMP[STEPS][0])
    ends = [log_collapse_threshold(*sizes, tau) for tau in _budgets(energy, sizes)]
    curves = np.array(
        [
            _reaching(rungs, np.log(imbalance), row, end)
            for row, end in zip(cosine, ends, strict=True)
        ]
    )
    for curve, (light, _) in zip(curves.T[1:], RAMP[STEPS + 1 :], strict=True):
        _paint_right(ax, energy, curve, facecolor=light)


def _reaching(
    levels: np.ndarray, log_ratio: np.ndarray, cosine: np.ndarray, end: float
) -> np.ndarray:
    """Return the logarithms of the ratios where a row reaches some cosines."""
    before = log_ratio < end
    known = np.append(log_ratio[before], end), np.append(cosine[before], 1.0)
    return np.asarray(np.interp(levels, known[1], known[0]))


def _paint_phases(ax: Axes, energy: np.ndarray, sizes: tuple[int, int]) -> None:
    """Paint the phases without a variable cosine up to their exact borders."""
    K_A, K_B, K = *sizes, sum(sizes)
    low, high = energy[[0, -1]]
    places = np.geomspace(low, high, _BORDER_POINTS)
    # The minority vanishes below this energy only, and the border runs off there.
    last = (K_A * (K_A - 1) * math.log1p(math.sqrt(K / K_B)) / K) ** 2
    bend = last * (1 - np.geomspace(1e-12, 0.1, _BORDER_POINTS // 4))
    places = np.unique(np.append(places, bend[(bend > low) & (bend < high)]))
    budgets = _budgets(places, sizes)
    equal = np.array([log_collapse_threshold(*sizes, tau) for tau in budgets])
    zero = np.array([log_vanishing_threshold(*sizes, tau) for tau in budgets])
    _paint_right(ax, places, equal, facecolor=RAMP[-1][0])
    # The edge covers what shines through where the areas below are cut off.
    blank = {"facecolor": colour("surface"), "edgecolor": colour("surface")}
    _paint_right(ax, places, zero, beyond=0.0, linewidth=1.0, **blank)
    with mpl.rc_context({"hatch.color": colour("line")}):
        _paint_right(ax, places, zero, facecolor="none", hatch="////")
    _draw_border(ax, places, equal, "R₀", share=0.6)
    _draw_border(ax, places, zero, "R₁", share=0.4)


def _budgets(energy: np.ndarray, sizes: tuple[int, int]) -> list[float]:
    return [sum(sizes) * math.sqrt(product) for product in energy]


def _paint_right(
    ax: Axes,
    energy: np.ndarray,
    border: np.ndarray,
    *,
    beyond: float = _BEYOND,
    linewidth: float = 0.0,
    **look: Any,  # noqa: ANN401 - what a patch takes
) -> None:
    """Paint what lies right of a border, given by the logarithm of the ratio.

    Far enough beyond the axes, that the border leaves them where it should; or up to
    them, the edge included.
    """
    left, right = np.log(ax.get_xlim())
    far = right + beyond * (right - left)
    if (border < right).any():
        ratio = np.exp(np.clip(border, left, far))
        corners = np.exp(far) * np.ones(2), energy[[-1, 0]]
        outline = np.vstack(
            [np.column_stack([ratio, energy]), np.column_stack(corners)]
        )
        patch = Polygon(outline, linewidth=linewidth, zorder=1, **look)
        ax.add_artist(patch)  # unlike `add_patch`, without a search for its extent
        patch.set_clip_on(beyond > 0)


def _draw_border(
    ax: Axes, energy: np.ndarray, border: np.ndarray, tag: str, share: float
) -> None:
    """Draw a border, and its name at a share of what is seen of it."""
    ratio = np.exp(np.minimum(border, _LARGEST_LOG))
    ax.plot(ratio, energy, color=colour("ink"), linewidth=1.4, zorder=3)
    left, right = ax.get_xlim()
    seen = np.flatnonzero((ratio > left) & (ratio < right))
    if len(seen) == 0:
        return
    place = border[seen[0]] + share * (border[seen[-1]] - border[seen[0]])
    i = seen[np.argmin(abs(border[seen] - place))]
    ax.annotate(
        tag,
        (ratio[i], energy[i]),
        ha="center",
        va="center",
        color=colour("ink"),
        zorder=4,
        bbox={
            "boxstyle": "round,pad=0.2",
            "facecolor": colour("surface"),
            "edgecolor": colour("ink"),
            "linewidth": 0.8,
        },
    )


def _name_phases(ax: Axes, cosine: np.ndarray) -> None:
    """Write the name of each phase where it has most room."""
    zero = np.isnan(cosine)
    equal = cosine == 1
    phases = (
        ("classifiers\ndiffer", ~(equal | zero), "ink", RAMP[STEPS][0]),
        ("all equal\nfrom R₀ on", equal, "surface", RAMP[-1][0]),
        ("all zero\nfrom R₁ on", zero, "ink", colour("surface")),
    )
    for name, where, role, ground in phases:
        place = _roomiest(where)
        if place is not None:
            ax.text(
                *place,
                name,
                transform=ax.transAxes,
                color=colour(role),
                ha="center",
                va="center",
                zorder=4,
                path_effects=[withStroke(linewidth=3, foreground=ground)],
            )


def _roomiest(where: np.ndarray) -> tuple[float, float] | None:
    """Return the place farthest from everything else, as shares of the axes."""
    rows, columns = where.shape
    room = distance_transform_edt(np.pad(where, 1), sampling=(1 / rows, 1 / columns))
    row, column = np.unravel_index(np.argmax(room), room.shape)
    if room[row, column] < _LEAST_ROOM:
        return None
    return float((column - 0.5) / columns), float((row - 0.5) / rows)
