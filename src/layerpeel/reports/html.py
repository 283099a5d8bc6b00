"""A page as HTML: one file that needs nothing but a browser.

No script, no network, no font of its own; light and dark as the reader's system asks.
The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from layerpeel._figures import printable, slug, variables
from layerpeel._json import json_text
from layerpeel._version import __version__
from layerpeel.reports.page import Page
from layerpeel.reports.picture import Picture

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
else:  # both are optional, and annotations are checked at run time in tests
    Markup = Template = Any

# Longer tables scroll in a window of their own.
_MOST_ROWS = 24
# Pictures wider than this, in points, have a row of the page to themselves.
_WIDE = 450.0

_MISSING = (
    "HTML reports need jinja2: pip install 'layerpeel[report]'. "
    "Text and JSON reports need nothing."
)


def render_html(page: Page) -> str:
    """Return a page as a complete HTML document.

    Args:
        page: The page.

    Raises:
        ImportError: If jinja2 is not installed.
    """
    return _render(page, prefix="", fragment=False)


def render_fragment(page: Page) -> str:
    """Return a page as a part of another document, for instance of a notebook.

    Every style rule is confined to the fragment, and identifiers begin with a digest of
    the content, so that several reports can stand in one notebook.

    Args:
        page: The page.

    Raises:
        ImportError: If jinja2 is not installed.
    """
    digest = hashlib.sha256(json_text(page.to_dict()).encode()).hexdigest()
    return _render(page, prefix=f"lp-{digest[:10]}-", fragment=True)


@dataclass(frozen=True)
class Drawing:
    """A picture with its SVG, as the template needs it."""

    picture: Picture
    svg: Markup
    wide: bool


def _render(page: Page, prefix: str, fragment: bool) -> str:
    html = _template().render(
        page=page,
        prefix=prefix,
        fragment=fragment,
        style=_style(),
        anchors=_anchors(page),
        draw=lambda picture: _drawing(picture, prefix),
        counts=Counter(finding.severity.value for finding in page.findings()),
        version=__version__,
        most_rows=_MOST_ROWS,
    )
    return printable(html)


def _template() -> Template:
    """Load the template, with escaping on for everything."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError(_MISSING) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": _prose}
    return environment.from_string(_source("page.html.j2"))


def _source(name: str) -> str:
    templates = resources.files("layerpeel.reports") / "templates"
    return (templates / name).read_text(encoding="utf-8")


def _style() -> Markup:
    """Return the style sheet with the colours of both schemes; paper is light."""
    from markupsafe import Markup

    schemes = (
        f".lp {{ color-scheme: light dark; {variables('light')} }}",
        f"@media (prefers-color-scheme: dark) {{ .lp {{ {variables('dark')} }} }}",
        f"@media print {{ .lp {{ color-scheme: light; {variables('light')} }} }}",
    )
    return Markup("\n".join([*schemes, _source("style.css")]))


def _anchors(page: Page) -> list[list[str]]:
    """Name the findings of every section by their codes, numbered when repeated."""
    seen: Counter[str] = Counter()
    return [
        [_anchor(slug(finding.code), seen) for finding in section.findings]
        for section in page.sections
    ]


def _anchor(name: str, seen: Counter[str]) -> str:
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


def _drawing(picture: Picture, prefix: str) -> Drawing:
    from markupsafe import Markup

    svg = picture.svg(prefix)
    box = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    return Drawing(picture, Markup(svg), box is not None and float(box[1]) > _WIDE)


def _prose(text: str) -> Markup:
    """Set paragraphs and, between backticks, code."""
    from markupsafe import Markup

    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text)]
    return Markup("\n").join(
        Markup("<p>{}</p>").format(_with_code(paragraph))
        for paragraph in paragraphs
        if paragraph
    )


def _with_code(text: str) -> Markup:
    from markupsafe import Markup, escape

    parts = re.split(r"`([^`\n]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part)
        for odd, part in enumerate(parts)
    )
