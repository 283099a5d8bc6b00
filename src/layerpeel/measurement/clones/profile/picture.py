"""The picture of a clone profile: errors, reconstruction and residuals over width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, ScalarFormatter
from torch import Tensor

from layerpeel._checks import one_of
from layerpeel._figures import axes, colour, figure
from layerpeel.measurement.clones.evidence.nulls import NullCurves
from layerpeel.measurement.clones.profile.curves import CloneCurves, deviation

PANELS: Mapping[str, str] = MappingProxyType(
    {
        "errors": "raw and folded error of chunks, and the network's",
        "reconstruction": "R^2 of linear reconstruction, beside its nulls",
        "residuals": "mean absolute residual correlation, and the noise floor",
    }
)
"""What a clone profile can be drawn as, by name."""

_SHARES = (1.35, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is drawn of a profile.

    Attributes:
        width: The width of the layer.
        widths: Widths of chunks.
        scored: The curves on the data that are judged by.
        held_out: Whether these are other data than coefficients were fitted to.
        train_raw: Raw error on the training set, with shape :math:`(m, r)`.
        scope: Which neurons count.
        floor: The noise floor of the residual correlation.
        spectrum: Random rotations, if there are any.
        untrained: An untrained copy, if there is one.
        critical: The critical width; NaN if there is none.
        independent: Errors of networks that are narrow from the start, by width.
    """

    width: int
    widths: Sequence[int]
    scored: CloneCurves
    held_out: bool
    train_raw: Float64[Tensor, "m r"]
    scope: str
    floor: Float64[Tensor, " m"]
    spectrum: NullCurves | None
    untrained: CloneCurves | None
    critical: float
    independent: Mapping[int, float]


def draw_profile(
    ax: Axes | None, drawn: Drawn, panel: str | None
) -> tuple[Figure, Axes]:
    """Draw one panel, or all of them one above another.

    Args:
        ax: Where to draw one panel; a figure of its own by default.
        drawn: What to draw.
        panel: A key of ``PANELS``. When omitted, all of them, or with ``ax`` the first;
            without errors there is no panel of errors among them.

    Returns:
        The figure, and the axes of the first panel.

    Raises:
        ValueError: If there is no such panel.
    """
    if panel is not None:
        one_of("panel", panel, PANELS)
    names = [p for p in PANELS if p != "errors" or drawn.scored.has_errors]
    if ax is None and panel is None:
        return _draw_all(drawn, names)
    fig, ax = axes(ax, width=460)
    _draw(ax, drawn, panel or names[0], labelled=True)
    _label_widths(ax, drawn)
    return fig, ax


def _draw_all(drawn: Drawn, names: Sequence[str]) -> tuple[Figure, Axes]:
    shares = _SHARES[-len(names) :]
    fig = figure(470, 150 * sum(shares) + 20)
    grid = fig.add_gridspec(len(names), 1, height_ratios=shares)
    first = fig.add_subplot(grid[0])
    rest = [fig.add_subplot(grid[i], sharex=first) for i in range(1, len(names))]
    for ax, name in zip([first, *rest], names, strict=True):
        _draw(ax, drawn, name, labelled=name == names[0])
        ax.tick_params(labelbottom=name == names[-1])
    _label_widths([first, *rest][-1], drawn)
    fig.align_ylabels([first, *rest])
    return fig, first


def _draw(ax: Axes, drawn: Drawn, panel: str, *, labelled: bool) -> None:
    ax.set_xscale("log", base=2)
    draws = {"errors": _errors, "reconstruction": _reconstruction}
    draws.get(panel, _residuals)(ax, drawn)
    if drawn.critical <= max(drawn.widths):
        clones = drawn.width / drawn.critical
        label = f"critical width {drawn.critical:.0f}: {clones:.3g} clone" + (
            "s" if clones > 1 else ""
        )
        ax.axvline(
            drawn.critical,
            label=label if labelled else None,
            color=colour("ink"),
            linewidth=1.1,
            linestyle=(0, (2, 2)),
        )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), borderaxespad=0.2)


def _errors(ax: Axes, drawn: Drawn) -> None:
    where = "held-out" if drawn.held_out else "training"
    _band(ax, drawn.widths, drawn.scored.raw, f"raw, {where}", "minority", "-o")
    _band(ax, drawn.widths, drawn.scored.folded, f"folded, {where}", "majority", "-s")
    if drawn.held_out:
        _line(
            ax, drawn.widths, drawn.train_raw.nanmean(1), "raw, training", "muted", ":^"
        )
    if drawn.independent:
        x = sorted(drawn.independent)
        alone = torch.tensor([drawn.independent[w] for w in x], dtype=torch.float64)
        _line(ax, x, alone, "independent networks", "ideal", "-D")
    expected = drawn.scored.expected
    _line(ax, drawn.widths, expected, "raw, expected", "predicted", "--")
    full = drawn.scored.full_error
    label = f"the network: {full:.3g}"
    ax.axhline(full, label=label, color=colour("measured"), linewidth=1.0)
    ax.set_ylabel("error")
    _logarithmic(ax, drawn.scored.raw, drawn.scored.folded)


def _reconstruction(ax: Axes, drawn: Drawn) -> None:
    r_squared = drawn.scored.r_squared[drawn.scope]
    _band(ax, drawn.widths, r_squared, "chunks", "measured", "-o")
    if drawn.spectrum is not None:
        x = drawn.spectrum.widths.tolist()
        _band(ax, x, drawn.spectrum.r_squared, "random rotations", "predicted", "--")
    if drawn.untrained is not None:
        values = drawn.untrained.r_squared[drawn.scope]
        _band(ax, drawn.widths, values, "untrained copy", "muted", ":^")
    lowest = float(np.nanmin([0.0, *r_squared.nanmean(1).tolist()]))
    ax.set(ylabel="R²", ylim=(max(-1.0, lowest) - 0.05, 1.05))


def _residuals(ax: Axes, drawn: Drawn) -> None:
    correlation = drawn.scored.correlation[drawn.scope]
    _band(ax, drawn.widths, correlation, "chunks", "measured", "-o")
    tables = [correlation, drawn.floor]
    if drawn.spectrum is not None:
        x, null = drawn.spectrum.widths.tolist(), drawn.spectrum.correlation
        _band(ax, x, null, "random rotations", "predicted", "--")
        tables.append(null)
    _line(ax, drawn.widths, drawn.floor, "noise floor", "ideal", "-.")
    ax.set_ylabel("residual |correlation|")
    _logarithmic(ax, *tables)


def _band(
    ax: Axes,
    widths: Sequence[int],
    table: Float64[Tensor, "m r"],
    label: str,
    role: str,
    look: str,
) -> None:
    """Draw the mean over chunks, with one standard deviation to either side."""
    mean, spread = table.nanmean(1), deviation(table).nan_to_num(0.0)
    low, high = (mean - spread).numpy(), (mean + spread).numpy()
    ax.fill_between(widths, low, high, color=colour(role), alpha=0.15, linewidth=0)
    _line(ax, widths, mean, label, role, look)


def _line(
    ax: Axes, widths: Sequence[int], values: Tensor, label: str, role: str, look: str
) -> None:
    known = ~values.isnan()
    if not bool(known.any()):
        return
    x = np.asarray(widths)[known.numpy()]
    ax.plot(
        x, values[known].numpy(), look, color=colour(role), markersize=4, label=label
    )


def _logarithmic(ax: Axes, *tables: Tensor) -> None:
    """Make the vertical axis logarithmic about what is above zero; zero lies below it."""
    positive = [
        value
        for table in tables
        for value in (table if table.ndim == 1 else table.nanmean(1)).tolist()
        if value > 0
    ]
    if positive:
        ax.set_yscale("log", nonpositive="clip")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(min(positive) / 2, max(positive) * 1.6)


def _label_widths(ax: Axes, drawn: Drawn) -> None:
    marks = [w for w in drawn.widths if w & (w - 1) == 0] or list(drawn.widths)
    if len(drawn.widths) <= 14:
        marks = list(drawn.widths)
    ax.set_xticks(marks)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"neurons of a chunk, of {drawn.width}")
