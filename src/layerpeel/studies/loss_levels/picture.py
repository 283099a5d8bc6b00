"""The picture of a hierarchy: curves with their plateaus, beside a ladder of levels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from layerpeel._figures import axes, colour, plain
from layerpeel.landscape import Kind

if TYPE_CHECKING:
    from layerpeel.studies.loss_levels.diagram import Hierarchy, Match, Run

# What tells runs apart: a colour and a dash.
_LOOKS = (
    ("majority", "-"),
    ("minority", (0, (6, 1.5))),
    ("predicted", (0, (3, 1.2))),
    ("ideal", (0, (1, 1))),
)
_SADDLE = (0, (4, 2))
# How near a plateau must be for a line to lead to its level.
_NEAR = 0.1
# The share of the axes that the curves have.
_SHARE = 0.64
# Half the width of a level, in columns of the ladder.
_HALF = 0.36


def draw_hierarchy(ax: Axes | None, hierarchy: Hierarchy) -> tuple[Figure, Axes]:
    """Draw a hierarchy; see :meth:`Hierarchy.plot`.

    Args:
        ax: Where to draw the runs; a figure of its own by default.
        hierarchy: What to draw.

    Returns:
        The figure and the axes of the runs.
    """
    fig, ax = axes(ax, width=620, height=380)
    ax.set(xscale="log", yscale="log")
    last = max((run.descent.steps for run in hierarchy.runs), default=10)
    # The ladder stands in the same axes, right of the last step: levels are one line
    # from the curves to their networks.
    ax.set_xlim(0.8, last ** (1 / _SHARE))
    ladder = ax.inset_axes((_SHARE + 0.03, 0, 0.97 - _SHARE, 1), sharey=ax)
    for run, look in zip(hierarchy.runs, _looks(len(hierarchy.runs)), strict=True):
        _draw_run(ax, run, look)
    _draw_ladder(ladder, hierarchy)
    for match in hierarchy.matches:
        _draw_match(ax, ladder, match, list(hierarchy.searches))
    powers = range(int(math.log10(last)) + 1)
    ax.set_xticks([10.0**power for power in powers])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("steps of gradient descent", x=0, ha="left")
    ax.set_ylabel("loss")
    if hierarchy.runs:
        ax.legend(
            loc="lower left", title="hidden widths,\ntrained", title_fontsize="small",
            alignment="left",
        )  # fmt: skip
    return fig, ax


def _looks(count: int) -> list[tuple[str, object]]:
    return [_LOOKS[i % len(_LOOKS)] for i in range(count)]


def _name(hidden: tuple[int, ...]) -> str:
    return "-".join(map(str, hidden))


def _draw_run(ax: Axes, run: Run, look: tuple[str, object]) -> None:
    role, dash = look
    steps, losses = run.curve.steps.numpy(), run.curve.losses.numpy()
    name = plain(_name(run.descent.hidden))
    ax.plot(
        steps, losses, color=colour(role), linestyle=dash, linewidth=1.4, label=name
    )
    for plateau in run.plateaus:
        part = slice(plateau.first, plateau.last + 1)
        ax.plot(
            steps[part], losses[part], color=colour(role), linewidth=5, alpha=0.35,
            solid_capstyle="round", zorder=1.8,
        )  # fmt: skip


def _draw_ladder(ladder: Axes, hierarchy: Hierarchy) -> None:
    """Draw a column of levels per narrow network, and how they go on in wider ones."""
    columns = list(hierarchy.searches)
    for rung in hierarchy.rungs:
        at, loss = columns.index(rung.hidden), rung.level.loss
        ladder.hlines(loss, at - _HALF, at + _HALF, color=colour("ink"), linewidth=2)
        saddle = rung.embedded.kind is Kind.STRICT_SADDLE
        ladder.hlines(
            loss, at + _HALF, len(columns) - 0.3, color=colour("muted"), linewidth=0.9,
            linestyle=_SADDLE if saddle else "-",
        )  # fmt: skip
    ladder.set_xlim(-0.7, len(columns) - 0.3)
    ladder.set_xticks(range(len(columns)), [_name(hidden) for hidden in columns])
    ladder.xaxis.set_minor_locator(NullLocator())
    ladder.tick_params(labelleft=False)
    ladder.grid(visible=False, axis="x")
    ladder.spines[:].set_visible(False)
    ladder.set_facecolor("none")
    ladder.set_xlabel("hidden widths, critical points")
    ladder.legend(handles=_keys(hierarchy), loc="upper right", bbox_to_anchor=(1, 0.93))


def _keys(hierarchy: Hierarchy) -> list[Line2D]:
    """Return what the key of the ladder has to explain."""
    saddles = [rung.embedded.kind is Kind.STRICT_SADDLE for rung in hierarchy.rungs]
    keys = [Line2D([], [], color=colour("ink"), linewidth=2.6, label="critical level")]
    if any(saddles):
        look = {"color": colour("muted"), "linewidth": 0.9, "linestyle": _SADDLE}
        keys.append(Line2D([], [], **look, label="embedded: strict saddle"))  # type: ignore[arg-type]
    if not all(saddles):
        look = {"color": colour("muted"), "linewidth": 0.9}
        keys.append(Line2D([], [], **look, label="embedded: none shown"))  # type: ignore[arg-type]
    return keys


def _draw_match(
    ax: Axes, ladder: Axes, match: Match, columns: list[tuple[int, ...]]
) -> None:
    """Lead from a plateau to its level, across both axes, if it is near."""
    if abs(match.distance) > _NEAR:
        return
    loss, at = match.rung.level.loss, columns.index(match.rung.hidden)
    look = {"color": colour("predicted"), "linewidth": 1, "linestyle": ":"}
    edge = ax.get_xlim()[1] ** (_SHARE + 0.03)
    ax.plot([match.plateau.start, edge], [loss, loss], zorder=1.2, **look)  # type: ignore[arg-type]
    ladder.plot([-0.7, at - _HALF], [loss, loss], zorder=1.2, **look)  # type: ignore[arg-type]
