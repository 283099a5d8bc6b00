"""A table of a report, and the one place where its numbers become text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from layerpeel._checks import ShapeError
from layerpeel._figures import printable
from layerpeel._frames import DataFrame, data_frame

Cell = str | int | float | bool | None

_DIGITS = 4
# How many digits a number may show so that those of a column have equal decimals.
_MOST_DIGITS = 5
# Between these powers of ten a number is written without an exponent.
_SMALL, _LARGE = -4, 7
# In a terminal, in characters: the widest column, and the gap that rich leaves.
_WIDEST, _COLUMN_GAP = 40, 3


def cell_text(cell: Cell) -> str:
    """Return how a report writes a value: four significant digits, integers in full.

    Args:
        cell: The value of one cell.

    Returns:
        ``"undefined"`` for NaN, ``"–"`` for ``None``, ``"yes"`` or ``"no"`` for a truth
        value.

    Example:
        >>> [cell_text(cell) for cell in (0.123456, 12345.6, 1e-9, 5000, None, True)]
        ['0.1235', '12346', '1e-9', '5000', '–', 'yes']
    """
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return str(cell) if isinstance(cell, int) else _number_text(float(cell))


def _number_text(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # The exponent after rounding: 99999.96 has six digits before the point.
    mantissa, exponent = f"{value:.{_DIGITS - 1}e}".split("e")
    power = int(exponent)
    if value == 0 or not _SMALL <= power < _LARGE:
        return _trimmed(mantissa) + (f"e{power}" if value else "")
    return _trimmed(f"{value:.{max(0, _DIGITS - 1 - power)}f}")


def _trimmed(digits: str) -> str:
    """Drop the zeros that end a fraction, and the sign of zero."""
    kept = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if kept == "-0" else kept


def column_texts(cells: Sequence[Cell]) -> list[str]:
    """Return how a report writes the cells of a column, its decimal points aligned.

    Fractions get the decimals that the smallest of them needs for four significant
    digits, unless that would pretend to much more precision in the largest.

    Args:
        cells: The values of one column.

    Example:
        >>> column_texts([0.9, 0.8433, None]), column_texts([25.25, 0.001234])
        (['0.9000', '0.8433', '–'], ['25.25', '0.001234'])
    """
    texts = [cell_text(cell) for cell in cells]
    decimals = _common_decimals(cells) if _is_numeric(cells) else 0
    return [
        f"{cell:.{decimals}f}" if decimals and _is_fraction(cell) else text
        for cell, text in zip(cells, texts, strict=True)
    ]


def _is_fraction(cell: Cell) -> bool:
    return isinstance(cell, float) and math.isfinite(cell)


def _common_decimals(cells: Sequence[Cell]) -> int:
    """Return how many decimals all fractions of a column can have; 0 for their own."""
    texts = [cell_text(cell) for cell in cells if _is_fraction(cell)]
    split = [text.lstrip("-").partition(".")[::2] for text in texts]
    whole = max((len(before) for before, _ in split), default=0)
    decimals = max((len(after) for _, after in split), default=0)
    # 90 is a count that happens to be a float; 90.000 would say something else.
    has_count = any(len(before) > 1 and not after for before, after in split)
    too_long = whole + decimals > _MOST_DIGITS or "e" in "".join(texts)
    return 0 if has_count or too_long else decimals


@dataclass(frozen=True)
class Table:
    """A titled table whose rows all have the width of its columns.

    Attributes:
        title: What the table shows.
        columns: The column headers.
        rows: The rows; a cell is text, a number, a truth value or ``None``.
        note: What a reader needs to know beside it; empty when nothing.
        row_headers: Whether the first cell of a row names the row.

    Raises:
        ShapeError: If a row has another length than the columns.

    Example:
        >>> Table("Norms", ("class", "norm"), [("cat", 1.5)]).to_dict()["rows"]
        [['cat', 1.5]]
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    row_headers: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ShapeError(
                    f"Every row must have {len(self.columns)} cells, one for each of "
                    f"`columns`; row {index} has {len(row)}."
                )

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, apart from cells left empty."""
        return tuple(_is_numeric(cells) for cells in self._by_column())

    def texts(self) -> list[tuple[str, ...]]:
        """Return the rows as text; see :func:`column_texts`."""
        columns = [column_texts(cells) for cells in self._by_column()]
        return list(zip(*columns, strict=True))

    def _by_column(self) -> list[list[Cell]]:
        return [[row[i] for row in self.rows] for i in range(len(self.columns))]

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain lists and values."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "note": self.note,
        }

    def to_frame(self) -> DataFrame:
        """Return the content as a ``pandas.DataFrame``.

        Raises:
            ImportError: If pandas is not installed.
        """
        return data_frame([list(row) for row in self.rows], self.columns)

    def __rich__(self) -> Group:
        return self.rich()

    def rich(self, width: int | None = None, most_rows: int | None = None) -> Group:
        """Return the table as ``rich`` draws it in a terminal.

        Args:
            width: The number of characters in a line; columns that do not fit are left
                out, and counted below. All are kept when omitted.
            most_rows: How many rows to show; all when omitted.
        """
        texts = self.texts()[:most_rows]
        kept = _fitting([self.columns, *texts], width)
        drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column, numeric in list(zip(self.columns, self.numeric, strict=True))[
            :kept
        ]:
            drawn.add_column(
                literal(column),
                justify="right" if numeric else "left",
                overflow="fold",
                max_width=_WIDEST,
            )
        for row in texts:
            drawn.add_row(*(literal(cell) for cell in row[:kept]))
        notes = _left_out(len(self.rows) - len(texts), len(self.columns) - kept)
        notes += [self.note] if self.note else []
        return Group(
            literal(self.title, "bold"), drawn, *(literal(n, "dim") for n in notes)
        )


def _is_numeric(cells: Sequence[Cell]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(
        isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known
    )


def _fitting(rows: Sequence[Sequence[str]], width: int | None) -> int:
    """Return how many columns fit; the first always does, for it can be folded."""
    widths = [min(_WIDEST, max(map(len, cells))) for cells in zip(*rows, strict=True)]
    ends = accumulate(width + _COLUMN_GAP for width in widths)
    if width is None:
        return len(widths)
    return max(1, sum(end - _COLUMN_GAP <= width for end in ends))


def _left_out(rows: int, columns: int) -> list[str]:
    """Say what is not shown."""
    counts = {"row": rows, "column": columns}
    said = [
        f"{count} more {what}{'s' * (count > 1)}"
        for what, count in counts.items()
        if count
    ]
    return [f"... {' and '.join(said)}"] if said else []


def literal(content: str, style: str = "") -> Text:
    """Return text that is shown as it is, and cannot steer the terminal.

    A class may be called ``[red]``, or hold an escape sequence.
    """
    return Text(printable(content), style=style)
