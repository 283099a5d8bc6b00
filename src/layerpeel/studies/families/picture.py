"""The picture of a family of widths: excess errors against the width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from layerpeel._figures import axes, colour, thinned
from layerpeel.measurement.clones.evidence.power_law import PowerLaw

CURVES: Mapping[str, str] = MappingProxyType(
    {
        "raw": "chunks, raw",
        "folded": "chunks, folded",
        "independent": "independent networks",
        "ensembles": "ensembles of them",
    }
)
"""What is drawn against the width, by name, and what the key calls it."""

_LOOKS = {
    "raw": ("minority", "-o"),
    "folded": ("ideal", "-.^"),
    "independent": ("majority", "-s"),
    "ensembles": ("measured", "--D"),
}
_MOST_WIDTHS = 12
# A band ends at this share of the mean where it would reach zero.
_CUT = 4
# By how much a law may miss a mean and still be drawn.
_FACTOR = 2

Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """One of the curves.

    Attributes:
        widths: Where it is known.
        mean: Mean errors.
        spread: Standard deviations; NaN where there is one error only.
        law: The power law fitted to it, if any; of NaN if there is none.
    """

    widths: tuple[int, ...]
    mean: Column
    spread: Column
    law: PowerLaw | None


def draw_family(
    ax: Axes | None, curves: Mapping[str, Curve], error_inf: float
) -> tuple[Figure, Axes]:
    """Draw curves above a common error, or errors where there is none.

    Args:
        ax: Where to draw; a figure of its own by default.
        curves: The curves, by name.
        error_inf: What excess errors are above; NaN for errors as they are.

    Returns:
        The figure and the axes.
    """
    fig, ax = axes(ax, width=470, height=330)
    floor = 0.0 if math.isnan(error_inf) else error_inf
    for name, curve in curves.items():
        _draw(ax, name, curve, floor)
    _scale(ax, curves)
    ax.set_xlabel("width: neurons of a chunk, or of a network")
    known = "error" if math.isnan(error_inf) else f"error above {error_inf:.4g}"
    ax.set_ylabel(f"held-out {known}")
    if ax.lines:
        # Above the axes: bands leave no free corner.
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderaxespad=0.2
        )
    return fig, ax


def _draw(ax: Axes, name: str, curve: Curve, floor: float) -> None:
    role, look = _LOOKS[name]
    x, excess = np.array(curve.widths, dtype=np.float64), curve.mean - floor
    shown = excess > 0  # not where it is NaN either
    if not shown.any():
        return
    law = curve.law if _describes(curve, floor) else None
    label = CURVES[name] + _slope(law)
    ax.plot(
        x,
        np.where(shown, excess, np.nan),
        look,
        color=colour(role),
        markersize=4,
        label=label,
    )
    # A band that reaches below zero has no logarithm there: it is cut.
    low = np.maximum(excess - curve.spread, excess / _CUT)
    ax.fill_between(
        x,
        low,
        excess + curve.spread,
        where=shown & ~np.isnan(curve.spread),
        color=colour(role),
        alpha=0.15,
        linewidth=0,
    )
    if law is not None:
        _draw_law(ax, law, floor, role)


def _describes(curve: Curve, floor: float) -> bool:
    """Return whether a fitted law is within a factor of every excess error it is about.

    A least-squares line exists for any curve; drawn through one that bends, it misleads.
    """
    law = curve.law
    if law is None or math.isnan(law.exponent.value):
        return False
    means = dict(zip(curve.widths, (curve.mean - floor).tolist(), strict=True))
    pairs = [(law.at(w) - floor, means[w]) for w in law.widths]
    return all(
        y > 0 and x > 0 and abs(math.log(x / y)) <= math.log(_FACTOR) for x, y in pairs
    )


def _draw_law(ax: Axes, law: PowerLaw, floor: float, role: str) -> None:
    """Draw a law, faintly, over the widths it was fitted to."""
    x = np.geomspace(min(law.widths), max(law.widths), 60)
    y = np.array([law.at(float(w)) for w in x]) - floor
    ax.plot(x, y, ":", color=colour(role), linewidth=1, alpha=0.8)


def _slope(law: PowerLaw | None) -> str:
    return "" if law is None else f" (∝ w^−{law.exponent.value:.2f})"


def _scale(ax: Axes, curves: Mapping[str, Curve]) -> None:
    """Make both axes logarithmic, and name the widths there are."""
    widths = sorted({width for curve in curves.values() for width in curve.widths})
    ax.set_xscale("log")
    if ax.lines:  # only what is above zero is drawn
        ax.set_yscale("log")
    named = [widths[i] for i in thinned(len(widths), _MOST_WIDTHS)]
    ax.set_xticks(named, [str(width) for width in named])
    ax.xaxis.set_minor_locator(NullLocator())
