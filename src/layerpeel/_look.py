"""The palette and the style of every picture, for light and for dark backgrounds.

A picture is drawn once, in the light colours. Each light colour of the palette is used
for one role only, so that an SVG can be re-coloured afterwards: `_svg` replaces every
colour by the CSS variable of its role, and the page says what the role looks like in
the reader's colour scheme.

Majority and minority differ in hue along blue and orange and predictions in lightness
too, so that the roles stay apart under the common colour vision deficiencies. Shape or
line style says the same again wherever two roles meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np

from layerpeel._checks import one_of

# Role: (colour on light, colour on dark). The last block is used by pages only.
PALETTE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "surface": ("#ffffff", "#171c24"),
        "ink": ("#1c2430", "#e6eaf0"),
        "muted": ("#5a6573", "#9ba7b6"),
        "grid": ("#e2e6eb", "#2d3643"),
        "majority": ("#1f6fb4", "#6db3f2"),
        "minority": ("#c2500c", "#ff9a5c"),
        "measured": ("#3a4656", "#c9d2dd"),
        "predicted": ("#6b1f96", "#b07cff"),
        "ideal": ("#1d9a8a", "#36a38c"),
        "page": ("#f5f6f8", "#0f1319"),
        "line": ("#d3d9e1", "#343e4c"),
        "code": ("#eff1f4", "#0f141b"),
        "problem": ("#b3261e", "#ff8a80"),
        "problem-tint": ("#fdecea", "#3a1d1d"),
        "warning": ("#8a5300", "#f2b84b"),
        "warning-tint": ("#fdf3e1", "#362913"),
        "note": ("#1d5fa0", "#82bdf5"),
        "note-tint": ("#e8f1fa", "#182b40"),
        "fine": ("#1c6e3d", "#6fcf97"),
        "fine-tint": ("#e7f5ec", "#152f21"),
    }
)

# The diverging map from one end over the centre to the other, and where its stops lie.
# The centre is next to the background in both schemes and the ends are far from it, so
# "more" is "more visible". At the second stop from either end, ink and background are
# equally legible on it: there `STRONG` begins.
_DIVERGING = (
    ("#0c4a80", "#3683c0", "#9fc6e6", "#f3f4f6", "#f2b78f", "#ca651a", "#8f3606"),
    ("#a9d6ff", "#407aad", "#2c5a86", "#222a35", "#7d4a2a", "#a96538", "#ffc39b"),
)
_STOPS = (0.0, 0.1875, 0.34375, 0.5, 0.65625, 0.8125, 1.0)
# Steps on either side of the centre: few enough for a small file, many enough that no
# step is seen.
STEPS = 20
# Steps from the centre beyond which text on the ramp has the background's colour.
STRONG = 12

_FONT_SIZE = 10.5

# Control characters but newline and tab, lone surrogates, and two non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def colour(role: str) -> str:
    """Return the colour a role is drawn in."""
    return PALETTE[role][0]


def _ramp(scheme: int) -> list[str]:
    """Interpolate the diverging map to ``2 * STEPS + 1`` colours."""
    stops = np.array([_channels(stop) for stop in _DIVERGING[scheme]])
    places = np.linspace(0, 1, 2 * STEPS + 1)
    mixed = np.stack(
        [np.interp(places, _STOPS, channel) for channel in stops.T], axis=1
    )
    return ["#" + "".join(f"{round(value):02x}" for value in row) for row in mixed]


def _channels(code: str) -> list[int]:
    return [int(code[start : start + 2], 16) for start in (1, 3, 5)]


RAMP: tuple[tuple[str, str], ...] = tuple(zip(_ramp(0), _ramp(1), strict=True))


def variables(scheme: str) -> str:
    """Return the CSS declarations of all roles.

    Args:
        scheme: ``"light"`` or ``"dark"``.

    Raises:
        ValueError: If it is something else.
    """
    column = ("light", "dark").index(one_of("scheme", scheme, ("light", "dark")))
    named = {f"--lp-{role}": pair[column] for role, pair in PALETTE.items()}
    ramp = {f"--lp-step-{i}": pair[column] for i, pair in enumerate(RAMP)}
    return " ".join(f"{name}: {value};" for name, value in (named | ramp).items())


def css_of(code: str) -> str:
    """Return the CSS variable of a drawn colour, with the colour as its fallback."""
    variable = _VARIABLES.get(code.lower())
    return f"var({variable}, {code})" if variable else code


_VARIABLES = {pair[0]: f"--lp-{role}" for role, pair in PALETTE.items()} | {
    pair[0]: f"--lp-step-{i}" for i, pair in enumerate(RAMP)
}

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [
        "DejaVu Sans"
    ],  # ships with Matplotlib: the same layout anywhere
    "font.size": _FONT_SIZE,
    "text.color": colour("ink"),
    "axes.titlesize": _FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titlecolor": colour("ink"),
    "axes.titlepad": 8,
    "axes.labelsize": _FONT_SIZE - 1,
    "axes.labelcolor": colour("muted"),
    "axes.facecolor": "none",
    "axes.edgecolor": colour("grid"),
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": colour("grid"),
    "grid.linewidth": 0.8,
    "xtick.color": colour("muted"),
    "ytick.color": colour("muted"),
    "xtick.labelsize": _FONT_SIZE - 1.5,
    "ytick.labelsize": _FONT_SIZE - 1.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": colour("surface"),
    "figure.edgecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": _FONT_SIZE - 1.5,
    "legend.labelcolor": colour("ink"),
    "lines.linewidth": 1.6,
    "hatch.color": colour("muted"),
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",  # text stays text: searchable, small, in the reader's font
    "pdf.fonttype": 42,
}


@contextmanager
def style(salt: str = "layerpeel") -> Iterator[None]:
    """Draw in the look of this package, whatever the caller's ``rcParams`` are.

    Starts from Matplotlib's defaults, so that two users get the same file, and puts the
    caller's settings back afterwards. Also usable as a decorator.

    Args:
        salt: What the identifiers inside an SVG derive from.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["svg.hashsalt"] = salt
        yield


def printable(text: str) -> str:
    r"""Replace what no file format, and no terminal, should receive.

    Control characters other than newline and tab, and lone surrogates, become
    ``U+FFFD``.

    Example:
        >>> printable("a\x1b[31mb")
        'a�[31mb'
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def shortened(text: str, most: int) -> str:
    """Cut a text to at most ``most`` characters, the last an ellipsis when cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str, most: int = 24) -> str:
    r"""Return a name as Matplotlib should draw it: one line, no mathematics.

    Matplotlib reads what stands between two dollar signs as a formula; the names of
    classes are not formulas.

    Args:
        text: Any text.
        most: The number of characters to keep.

    Example:
        >>> plain("$5 to $9")
        '\\$5 to \\$9'
    """
    one_line = " ".join(printable(text).split())
    return shortened(one_line, most).replace("$", r"\$")
