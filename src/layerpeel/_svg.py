"""Figures as SVG that stands inside a page and follows its colours.

The SVG that Matplotlib writes is a document of its own: it has a prolog, fixed colours
and sizes, a style sheet that would restyle the page around it, and identifiers that
meet those of the next picture. Here it becomes a fragment: no prolog, no style sheet,
colours as CSS variables, identifiers from the picture's name, the reader's fonts.

Working on the parsed tree rather than on the text keeps the names of classes out of
it: a class may well be called ``url(#a)`` or ``#1c2430``.
"""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree as ET

from matplotlib.figure import Figure

from layerpeel._look import css_of, printable, style

FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
)
# Groups whose identifier starts so hold adjoining cells; anti-aliasing would let the
# background shine through between them.
CELLS = "cells"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
# An axis-parallel rectangle, of which a heat map has thousands.
_RECTANGLE = re.compile(r"M (\S+) (\S+) L (\S+) \2 L \3 (\S+) L \1 \4 z")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_NUMERIC = {"d", "x", "y", "width", "height", "transform"}
# References are written in the older name space; HTML has none.
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"


def to_svg(figure: Figure, name: str, label: str = "") -> str:
    """Return a figure as an SVG fragment for inline use.

    The same figure gives the same text in every process.

    Args:
        figure: The figure, drawn in the colours of the palette.
        name: What its identifiers start with; unique in the page.
        label: The alternative text.

    Returns:
        One ``<svg>`` element without prolog or name space, as HTML wants it.
    """
    root = ET.fromstring(printable(_written(figure, name)))
    _strip(root)
    _rename(root, slug(name))
    for element in root.iter():
        _theme(element)
    for element in root.iter():
        _share_style(element)
    _make_root(root, label)
    return ET.tostring(root, encoding="unicode")


def slug(name: str) -> str:
    """Return a name as an identifier of HTML.

    Example:
        >>> slug("Class norms (W & H)")
        'class-norms-w-h'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _written(figure: Figure, name: str) -> str:
    """Let Matplotlib write the figure."""
    buffer = io.StringIO()
    with style(salt=name), warnings.catch_warnings():
        # The reader's fonts draw the text, so what ours lack does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None},
            facecolor="none",
            edgecolor="none",
        )
    return buffer.getvalue()


def _strip(element: ET.Element) -> None:
    """Drop name spaces, layout white space, metadata and the style sheet."""
    element.tag = element.tag.rpartition("}")[2]
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))
    if element.tag not in ("text", "tspan") and not (element.text or "").strip():
        element.text = None
    for child in list(element):
        child.tail = None
        _strip(child)
        if child.tag in ("metadata", "style") or _is_empty(child):
            element.remove(child)


def _is_empty(element: ET.Element) -> bool:
    return element.tag in ("g", "defs") and not len(element)


def _rename(root: ET.Element, prefix: str) -> None:
    """Number the identifiers something refers to, and drop the others."""
    used = [target for element in root.iter() for target in _targets(element)]
    names = {old: f"{prefix}-{i}" for i, old in enumerate(dict.fromkeys(used))}
    for element in root.iter():
        old = element.attrib.pop("id", "")
        if old.startswith(CELLS):
            element.set("shape-rendering", "crispEdges")
        if old in names:
            element.set("id", names[old])
        for key, value in element.attrib.items():
            element.set(key, _redirected(key, value, names))


def _targets(element: ET.Element) -> list[str]:
    hrefs = [value[1:] for key, value in element.attrib.items() if key == "href"]
    return hrefs + [t for v in element.attrib.values() for t in _REFERENCE.findall(v)]


def _redirected(key: str, value: str, names: dict[str, str]) -> str:
    if key == "href":
        return f"#{names[value[1:]]}"
    return _REFERENCE.sub(lambda match: f"url(#{names[match[1]]})", value)


def _theme(element: ET.Element) -> None:
    """Turn colours into variables, and numbers to the hundredth of a point."""
    for key, value in element.attrib.items():
        if key == "style":
            element.set(key, _themed_style(value))
        elif key in ("fill", "stroke"):
            element.set(key, css_of(value))
        elif key in _NUMERIC:
            element.set(key, _compact(" ".join(value.split())))


def _themed_style(declarations: str) -> str:
    pairs = [declaration.partition(":")[::2] for declaration in declarations.split(";")]
    kept = [(k.strip(), v.strip()) for k, v in pairs if k.strip() != "font-family"]
    return ";".join(f"{key}:{css_of(value)}" for key, value in kept)


def _share_style(group: ET.Element) -> None:
    """Say once for a cloud of equal marks how they look."""
    styles = {mark.get("style") for mark in group}
    if len(group) > 1 and len(styles) == 1 and all(mark.tag == "use" for mark in group):
        group.set("style", group[0].attrib["style"])
        for mark in group:
            del mark.attrib["style"]


def _compact(numbers: str) -> str:
    rounded = _DECIMALS.sub(
        lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), numbers
    )
    return _RECTANGLE.sub(r"M\1 \2H\3V\4H\1z", rounded)


def _make_root(root: ET.Element, label: str) -> None:
    """Leave the size to the page, and describe the picture to who cannot see it."""
    box = root.attrib["viewBox"]
    width = float(box.split()[2])
    root.attrib.clear()
    root.set("class", "lp-svg")
    root.set("viewBox", box)
    # Between where its text becomes too small to read and where it looks too large.
    root.set("style", f"min-width:{0.75 * width:.0f}px;max-width:{1.5 * width:.0f}px")
    root.set("font-family", FONTS)
    root.set("stroke-linejoin", "round")
    root.set("role", "img")
    root.set("aria-label", printable(label))
