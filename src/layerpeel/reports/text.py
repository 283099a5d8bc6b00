"""A page as text for a terminal: what `repr` shows."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from layerpeel._figures import printable
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from layerpeel.reports.page import Page, Section
from layerpeel.reports.table import literal

# Longer tables are for the HTML and the JSON.
MOST_ROWS = 20

_STYLES = {
    Severity.NOTE: "bold blue",
    Severity.WARNING: "bold yellow",
    Severity.PROBLEM: "bold red",
    None: "bold green",
}


def render_text(page: Page, *, width: int = 88, color: bool = False) -> str:
    """Return a page as text.

    Pictures appear by what they show in words. Tables are cut after 20 rows, and the
    theory behind the findings is left to the HTML.

    Args:
        page: The page.
        width: The number of characters in a line.
        color: Whether to add the codes that colour a terminal.

    Returns:
        The text, without white space at the ends of lines.
    """
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},  # the same text in every terminal
    )
    console.print(Group(*_page(page, width)))
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().split("\n"))


def _page(page: Page, width: int) -> Iterator[RenderableType]:
    yield literal(page.title, "bold")
    if page.subtitle:
        yield literal(page.subtitle, "dim")
    yield ""
    badge = literal(page.badge.upper(), _STYLES[page.severity])
    yield _pairs([(badge, literal(page.verdict))])
    for section in page.sections:
        yield from _section(section, width)
    if page.footer:
        yield ""
        yield literal(page.footer, "dim")


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    yield ""
    yield literal(section.title, "bold underline")
    # Without colour there is no underline either.
    yield literal("-" * len(section.title), "dim")
    parts: list[RenderableType] = [literal(section.text)] if section.text else []
    parts += [_finding(finding) for finding in section.findings]
    parts += [
        _pairs([(literal("picture"), literal(f"{picture.title}: {picture.alt}"))])
        for picture in section.pictures
    ]
    parts += [table.rich(width, MOST_ROWS) for table in section.tables]
    parts += [_outcomes(section)] if section.outcomes else []
    for index, part in enumerate(parts):
        yield from [""] if index else []
        yield part


def _finding(finding: Finding) -> Group:
    head = Text.assemble(
        (finding.code, "bold"),
        "  ",
        (finding.severity.value.upper(), _STYLES[finding.severity]),
        "  ",
        (printable(finding.title), "bold"),
    )
    rows = {
        "measured": finding.measured,
        "threshold": f"{finding.threshold} [{finding.source}]",
        "what to do": finding.action,
        "": finding.command,
        "why": f"layerpeel explain {finding.code}",
    }
    pairs = [(literal(key, "dim"), literal(said)) for key, said in rows.items() if said]
    return Group(head, Padding(_pairs(pairs), (0, 0, 0, 2)))


def _outcomes(section: Section) -> Grid:
    return _pairs([_outcome(outcome) for outcome in section.outcomes])


def _outcome(outcome: Passed | NotApplicable) -> tuple[Text, Text]:
    if isinstance(outcome, Passed):
        kind, said = "passed", outcome.measured
    else:
        kind, said = "does not apply", outcome.reason
    return literal(kind), literal(f"{outcome.code}  {outcome.title}: {said}")


def _pairs(rows: list[tuple[Text, Text]]) -> Grid:
    """Set keys in a column of their own, so that what is said wraps beside them."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, said in rows:
        grid.add_row(key, said)
    return grid
