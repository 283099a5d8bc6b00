"""Set LAYERPEEL_UPDATE_GOLDEN=1 to write the golden file anew, and read the difference."""

import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from layerpeel.reports.text import render_text
from tests.reports.samples import HOSTILE, PAGES, hostile_page, page

GOLDEN = Path(__file__).parent / "golden" / "page.txt"


def test_the_text_is_the_one_agreed_on():
    text = render_text(page()) + "\n"
    if os.environ.get("LAYERPEEL_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 88, 140])
@pytest.mark.parametrize("name", PAGES)
def test_no_line_is_wider_than_asked_for_or_ends_in_space(name, width):
    for line in render_text(PAGES[name](), width=width).split("\n"):
        assert cell_len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "20", "NO_COLOR": "1"},
        {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"},
        {"TERM": "dumb", "JUPYTER_COLUMNS": "30"},
    ],
    ids=lambda v: next(iter(v)),
)
def test_the_terminal_does_not_matter(variables, monkeypatch):
    expected = render_text(page())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert render_text(page()) == expected


def test_colour_is_added_only_when_asked_for():
    coloured = render_text(page(), color=True)
    assert "\x1b[" in coloured
    assert "\x1b" not in render_text(page())
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in bare.split("\n")] == render_text(page()).split(
        "\n"
    )


def test_hostile_names_cannot_steer_the_terminal():
    text = render_text(hostile_page(), width=200)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    for name in HOSTILE[:7]:
        assert name in text


def test_findings_say_what_to_do():
    text = render_text(page())
    first = text.split("LP001  PROBLEM")[1].split("LP004")[0]
    for said in (
        "measured",
        "threshold",
        "Fang et al. 2021",
        "lp.oversampling",
        "layerpeel explain LP001",
    ):
        assert said in first


def test_long_tables_are_cut_and_counted():
    text = render_text(page(100))
    assert "class 19 " in text
    assert "class 20 " not in text
    assert "... 80 more rows" in text
