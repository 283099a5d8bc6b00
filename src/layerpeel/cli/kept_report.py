"""A report on clones with the neurons that were kept, as text, HTML and JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from layerpeel.cli.kept_layer import KeptLayer
from layerpeel.reports.clone_report import CloneReport
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.page import Page


@dataclass(frozen=True, repr=False, eq=False)
class KeptReport(AbstractDocument):
    """A report on clones that ends with the neurons kept.

    Attributes:
        report: The report on clones.
        kept: The neurons kept.
    """

    report: CloneReport
    kept: KeptLayer

    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""
        page = self.report.page()
        return replace(page, sections=(*page.sections, self.kept.section()))

    def to_dict(self) -> dict[str, Any]:
        """Return the content, ready for JSON; the neurons are under ``kept``."""
        sections = self.page().to_dict()["sections"]
        content = {**self.report.to_dict(), "sections": sections}
        return {**content, "kept": self.kept.to_dict()}
