"""A picture of a report: what it shows in words, and how to draw it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from layerpeel._figures import save, slug, to_svg


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when it is needed.

    Attributes:
        name: Short and unique in the report; files and identifiers are called so.
        title: One line above the picture.
        caption: What to look at, below it.
        alt: What is seen, for those who do not see it; with the numbers that matter.
        draw: Returns the figure; drawn through `layerpeel._figures`, without `pyplot`.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure]

    def svg(self, prefix: str = "") -> str:
        """Return the picture as an SVG fragment that follows the colours of its page.

        Args:
            prefix: Put before its identifiers, where pages share a document.
        """
        return to_svg(self.draw(), prefix + slug(self.name), self.alt)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the picture on its own.

        Args:
            path: A file ending in ``.svg``, ``.png`` or ``.pdf``.

        Returns:
            The path written.
        """
        return save(self.draw(), path)

    def to_dict(self) -> dict[str, str]:
        """Return what the picture says in words."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
        }
