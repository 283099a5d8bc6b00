"""The norms of the classes against how often the classes were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray
from torch import Tensor

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

# Up to this many different counts each has a tick.
_MOST_TICKS = 6
# Ticks nearer than this share of the axis would write their numbers over each other.
_TICK_DISTANCE = 0.12


@style()
def norms_against_counts(
    counts: Float64[Tensor, " K"],
    measured: Mapping[str, Float64[Tensor, " K"]],
    predicted: Mapping[str, Float64[Tensor, " K"]] | None,
    labels: Sequence[str],
    minority: Sequence[int],
) -> Figure:
    """Draw the norms of the classes against how often the classes were seen.

    Classes of equal counts are set a little apart. Classes that were never seen have no
    place on the axis and are left out. The class of the smallest norm is named.

    Args:
        counts: The number of samples of each class, with shape :math:`(K,)`.
        measured: Norms by what they are norms of, such as ``"classifier"`` and
            ``"class mean"``, each with shape :math:`(K,)`; one panel for each.
        predicted: The same for the prediction, or ``None``.
        labels: The names of the classes.
        minority: The indices of the minority classes.

    Returns:
        The figure.

    Raises:
        ShapeError: If the numbers of classes differ.
    """
    predicted = predicted or {}
    for values in ({"counts": counts}, measured, predicted):
        check_lengths(len(labels), values)
    fig = figure(height=80 + 135.0 * len(measured))
    panels = fig.subplots(len(measured), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, norms) in zip(panels, measured.items(), strict=True):
        _draw_measured(ax, array(counts), array(norms), labels, minority)
        if name in predicted:
            _draw_predicted(ax, array(counts), array(predicted[name]))
        ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        ax.set_title(f"norm of the {name}")
    _count_axis(panels[-1], array(counts))
    legend(fig, _entries(minority, bool(predicted)))
    return fig


def _draw_measured(
    ax: Axes,
    counts: NDArray[np.float64],
    norms: NDArray[np.float64],
    labels: Sequence[str],
    minority: Sequence[int],
) -> None:
    places = _set_apart(counts)
    for role, classes in by_role(len(labels), minority).items():
        ax.plot(
            places[classes],
            norms[classes],
            MARKER[role],
            color=colour(role),
            markeredgecolor=colour("surface"),
            markeredgewidth=0.6,
            markersize=6,
            clip_on=False,
            alpha=0.85,
        )
    known = np.flatnonzero(np.isfinite(norms) & (counts > 0))
    if len(known) > 1:
        least = int(known[np.argmin(norms[known])])
        # Beside all classes of its count, so that the name covers none of them.
        beside = np.nanmax(places[counts == counts[least]])
        _name(ax, labels[least], float(beside), float(norms[least]))


def _name(ax: Axes, label: str, x: float, y: float) -> None:
    ax.annotate(
        plain(label),
        (x, y),
        xytext=(9, 2),
        textcoords="offset points",
        va="center_baseline",
        fontsize="small",
        color=colour("muted"),
    )


def _set_apart(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move equal counts apart on the logarithmic axis, the first class to the left."""
    places = np.where(counts > 0, counts, np.nan)
    seen = np.unique(counts[counts > 0])
    aside = 0.03 * (1 + float(np.log(seen[-1] / seen[0]))) if len(seen) else 0.0
    for count in seen:
        same = np.flatnonzero(counts == count)
        if len(same) > 1:
            places[same] = count * np.exp(np.linspace(-aside, aside, len(same)))
    return places


def _draw_predicted(
    ax: Axes, counts: NDArray[np.float64], norms: NDArray[np.float64]
) -> None:
    """Mark the prediction of each class, joined in increasing order of the counts."""
    order = [k for k in np.argsort(counts, kind="stable") if counts[k] > 0]
    ax.plot(
        counts[order],
        norms[order],
        "D",
        linestyle=(0, (5, 2.5)),
        color=colour("predicted"),
        markerfacecolor="none",
        markersize=7,
        linewidth=1.2,
        zorder=2.5,
        clip_on=False,
    )


def _count_axis(ax: Axes, counts: NDArray[np.float64]) -> None:
    seen = np.unique(counts[counts > 0])
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    apart = _far_apart(seen)
    if len(apart) <= _MOST_TICKS:
        ax.xaxis.set_major_locator(FixedLocator(apart))
    if len(seen):
        ax.set_xlim(seen[0] / 1.4, seen[-1] * 1.4)
    ax.set_xlabel("samples of the class")


def _far_apart(counts: NDArray[np.float64]) -> list[float]:
    """Keep increasing counts whose ticks have room between them, the first one first."""
    kept: list[float] = []
    room = (
        _TICK_DISTANCE * np.log(1.4**2 * counts[-1] / counts[0]) if len(counts) else 0
    )
    for count in counts.tolist():
        if not kept or np.log(count / kept[-1]) >= room:
            kept.append(count)
    return kept


def _entries(minority: Sequence[int], predicted: bool) -> dict[str, Line2D]:
    entries = group_legend(minority)
    if predicted:
        entries["predicted"] = mark("D", "predicted", markerfacecolor="none")
    return entries
