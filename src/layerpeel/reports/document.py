"""What every report can do: show itself, convert itself, save itself."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import Any

from layerpeel._files import check_writable, write_whole
from layerpeel._json import json_text
from layerpeel.reports.html import render_fragment, render_html
from layerpeel.reports.page import Page
from layerpeel.reports.text import render_text

SUFFIXES = (".html", ".json")


class AbstractDocument(abc.ABC):
    """Something with a page: the same content as text, HTML and JSON."""

    @abc.abstractmethod
    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""

    def to_json(self) -> str:
        """Return the content as JSON; undefined numbers are ``null``."""
        return json_text(self.to_dict())

    def to_html(self) -> str:
        """Return one self-contained HTML document."""
        return render_html(self.page())

    def to_text(self, width: int = 100) -> str:
        """Return the content as text.

        Args:
            width: The width of the page in characters.
        """
        return render_text(self.page(), width=width)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report, whole or not at all.

        Args:
            path: A path that ends in ``.html`` or ``.json``.

        Returns:
            The path.

        Raises:
            ValueError: If the suffix is another one.
            OSError: If the path cannot be written.
        """
        target = Path(path)
        if target.suffix not in SUFFIXES:
            raise ValueError(
                f"`path` must end in {' or '.join(SUFFIXES)}; got {str(path)!r}."
            )
        check_writable(target)
        write_whole(
            target, self.to_html() if target.suffix == ".html" else self.to_json()
        )
        return target

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the content of the page, and the numbers behind its pictures.

        Plain numbers, strings, lists and dictionaries, as JSON can hold them.
        """

    def __repr__(self) -> str:
        """Show the report as text."""
        return self.to_text()

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return render_fragment(self.page())
