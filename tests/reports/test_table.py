import math
import random
import sys
from decimal import Decimal

import pandas as pd
import pytest
from rich.console import Console

from layerpeel._checks import ShapeError
from layerpeel.reports.table import Table, cell_text, column_texts
from tests.reports.samples import HOSTILE


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "–"),
        ("", ""),
        ("a", "a"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (-12, "-12"),
        (123456789, "123456789"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (0.123456, "0.1235"),
        (-0.00123456, "-0.001235"),
        (1234.5678, "1235"),
        (12345.6, "12346"),
        (9998999.4, "9998999"),
        (9999999.4, "1e7"),
        (99999.96, "100000"),
        (1e7, "1e7"),
        (1.23456e9, "1.235e9"),
        (1e-4, "0.0001"),
        (9.99e-5, "9.99e-5"),
        (9.99996e-5, "0.0001"),
        (1e-320, "1e-320"),
        (math.nan, "undefined"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
    ],
    ids=repr,
)
def test_cell_text(cell, expected):
    assert cell_text(cell) == expected


def test_four_digits_are_right_whatever_the_size():
    numbers = random.Random(0)
    for _ in range(2000):
        value = numbers.choice([-1, 1]) * 10 ** numbers.uniform(-12, 12)
        error = abs(Decimal(cell_text(value)) - Decimal(value)) / abs(Decimal(value))
        assert error <= Decimal("5.001e-4"), value


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([0.9, 0.8433], ["0.9000", "0.8433"]),
        ([0.9, math.nan, None, math.inf], ["0.9", "undefined", "–", "∞"]),
        ([1.5, 2], ["1.5", "2"]),
        ([25.25, 0.001234], ["25.25", "0.001234"]),
        ([1e-9, 0.5], ["1e-9", "0.5"]),
        ([12.3456, 0.12], ["12.35", "0.12"]),
        ([12.3456, 0.123], ["12.346", "0.123"]),
        ([90.0, 1.5492], ["90", "1.549"]),
        ([-0.00001], ["-1e-5"]),
        (["a", 0.5], ["a", "0.5"]),
        ([True, False], ["yes", "no"]),
        ([], []),
    ],
    ids=repr,
)
def test_decimal_points_of_a_column_are_aligned(cells, expected):
    assert column_texts(cells) == expected


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ShapeError, match=r"must have 2 cells.*row 1 has 3"):
        Table("t", ["a", "b"], [[1, 2], [1, 2, 3]])


def test_a_table_does_not_change_with_what_it_was_made_of():
    rows = [["cat", 1.0]]
    table = Table("t", ["class", "norm"], rows)
    rows[0][0] = "dog"
    rows.append(["bird", 2.0])
    assert table.to_dict()["rows"] == [["cat", 1.0]]


def test_numeric_columns_are_those_of_numbers():
    rows = [["a", 1, 1.5, True, None, math.nan], ["b", 2, None, False, None, 1]]
    assert Table("t", list("abcdef"), rows).numeric == (
        False,
        True,
        True,
        False,
        False,
        True,
    )
    assert Table("t", ["a"], []).numeric == (False,)


def test_to_frame_holds_the_values():
    table = Table("t", ["class", "norm"], [["cat", 1.5], ["dog", math.nan]])
    expected = pd.DataFrame({"class": ["cat", "dog"], "norm": [1.5, math.nan]})
    pd.testing.assert_frame_equal(table.to_frame(), expected)


def test_to_frame_without_pandas_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"layerpeel\[study\]"):
        Table("t", ["a"], [[1]]).to_frame()


def printed(table, width=80):
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("name", [name for name in HOSTILE if len(name) < 40])
def test_names_are_literal_in_a_terminal(name):
    text = printed(Table(name, ["class"], [[name]], note=name))
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    assert text.count(shown) == 3
    assert "\x1b" not in text


def test_columns_that_do_not_fit_are_counted():
    table = Table(
        "t", ["name", *(f"column {i}" for i in range(9))], [["row", *range(9)]]
    )
    shown = printed(table.rich(width=40), 40)
    assert "column 2" in shown
    assert "column 3" not in shown
    assert "... 7 more columns" not in shown
    assert "... 6 more columns" in shown
    assert max(map(len, shown.splitlines())) <= 40
    assert "... 1 more column\n" in printed(table.rich(width=100), 100)
    assert "column 8" in printed(table.rich(), 200)


def test_rows_that_do_not_fit_are_counted():
    table = Table("t", ["n"], [[i] for i in range(30)], note="a note")
    shown = printed(table.rich(most_rows=20))
    assert "... 10 more rows" in shown
    assert "a note" in shown
    assert len([line for line in shown.splitlines() if line.strip().isdigit()]) == 20


def test_an_empty_table_is_a_table():
    assert "nothing" in printed(Table("nothing", ["a"], []))
    assert Table("t", [], []).texts() == []
    assert "t" in printed(Table("t", [], []).rich(width=20))
