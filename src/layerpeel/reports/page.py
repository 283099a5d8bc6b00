"""The structure of a report: what is said, in which order, and nothing of its looks.

Text is plain: an empty line begins a paragraph, and what stands between backticks is
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerpeel._figures import slug
from layerpeel._json import plain
from layerpeel._version import __version__
from layerpeel.reports.finding import Finding, NotApplicable, Outcome, Passed, Severity
from layerpeel.reports.picture import Picture
from layerpeel.reports.table import Table

# What a page whose checks found nothing says in place of a severity.
NOTHING_FOUND = "no findings"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading.
        text: Paragraphs.
        findings: What a reader should know, the most important first.
        tables: Its tables; they follow the pictures.
        pictures: Its pictures.
        outcomes: Checks that passed or do not apply.
        columns: Whether tables stand side by side where the page is wide enough, as in
            a comparison.
    """

    title: str
    text: str = ""
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    outcomes: Sequence[Passed | NotApplicable] = ()
    columns: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain lists and values."""
        return {
            "title": self.title,
            "text": self.text,
            "findings": [_outcome_dict(finding) for finding in self.findings],
            "pictures": [picture.to_dict() for picture in self.pictures],
            "tables": [table.to_dict() for table in self.tables],
            "outcomes": [_outcome_dict(outcome) for outcome in self.outcomes],
        }


@dataclass(frozen=True)
class Page:
    """A report as it is read from top to bottom.

    Attributes:
        title: The heading.
        subtitle: What it is about, in one line.
        verdict: One or two sentences that a reader in a hurry reads.
        severity: The highest severity of the findings; ``None`` without any.
        sections: The parts, in order.
        footer: A closing line, beside the version of the package.

    Raises:
        ValueError: If two pictures have one name.
    """

    title: str
    subtitle: str
    verdict: str
    severity: Severity | None
    sections: Sequence[Section]
    footer: str = ""

    def __post_init__(self) -> None:
        names = [slug(picture.name) for picture in self.pictures()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"Pictures of one page must have different names; got {twice[0]!r} "
                "twice. Rename one."
            )

    @property
    def badge(self) -> str:
        """The severity in words."""
        return NOTHING_FOUND if self.severity is None else self.severity.value

    def findings(self) -> Iterator[Finding]:
        """Go through the findings of all sections."""
        return (finding for section in self.sections for finding in section.findings)

    def pictures(self) -> Iterator[Picture]:
        """Go through the pictures of all sections."""
        return (picture for section in self.sections for picture in section.pictures)

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values that JSON can hold.

        NaN becomes ``None``, and infinity the text ``"Infinity"`` or ``"-Infinity"``:
        JSON has neither.
        """
        content = {
            "title": self.title,
            "subtitle": self.subtitle,
            "severity": None if self.severity is None else self.severity.value,
            "verdict": self.verdict,
            "sections": [section.to_dict() for section in self.sections],
            "footer": self.footer,
            "layerpeel": __version__,
        }
        return {key: plain(value) for key, value in content.items()}


def _outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome with the kind of outcome it is."""
    if isinstance(outcome, Finding):
        said = asdict(outcome) | {"severity": outcome.severity.value}
        return {"outcome": "finding"} | said | {"docs": outcome.docs}
    kind = "passed" if isinstance(outcome, Passed) else "not applicable"
    return {"outcome": kind} | asdict(outcome)
