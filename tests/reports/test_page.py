import inspect
import json
import math
from dataclasses import fields, is_dataclass, replace
from importlib import import_module

import pytest

import layerpeel
from layerpeel._json import json_text
from layerpeel.reports.finding import Severity
from layerpeel.reports.page import Page, Section
from layerpeel.reports.picture import Picture
from layerpeel.reports.table import Table
from tests.reports.samples import HOSTILE, PAGES, hostile_page, page


def said(value):
    """Every text and number of a page, found by walking over it."""
    if is_dataclass(value):
        for field in fields(value):
            looks = (Picture, "draw"), (Section, "columns"), (Table, "row_headers")
            if (type(value), field.name) not in looks:
                yield from said(getattr(value, field.name))
    elif isinstance(value, Severity):
        yield value.value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from said(item)
    else:
        yield value


def leaves(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("name", PAGES)
def test_the_json_says_everything(name):
    written = list(leaves(json.loads(json_text(PAGES[name]().to_dict()))))
    for item in said(PAGES[name]()):
        if isinstance(item, float) and not math.isfinite(item):
            item = None if math.isnan(item) else "Infinity"
        assert item in written


def test_the_json_has_the_order_of_the_page():
    content = json.loads(json_text(page().to_dict()))
    assert list(content) == [
        "title",
        "subtitle",
        "severity",
        "verdict",
        "sections",
        "footer",
        "layerpeel",
    ]
    assert content["layerpeel"] == layerpeel.__version__
    assert content["severity"] == "problem"
    findings, _, _, others = content["sections"]
    assert [finding["code"] for finding in findings["findings"]] == [
        "LP001",
        "LP004",
        "LP001",
    ]
    assert findings["findings"][0]["docs"] == "docs/findings.md#lp001"
    assert [outcome["outcome"] for outcome in others["outcomes"]] == [
        "passed",
        "not applicable",
    ]


@pytest.mark.parametrize("name", ["page", "html"])
def test_the_version_comes_from_below_and_not_from_the_root(name):
    module = import_module(f"layerpeel.reports.{name}")
    assert module.__version__ == layerpeel.__version__
    assert "from layerpeel import" not in inspect.getsource(module)


def test_numbers_that_json_does_not_have():
    table = Table("t", list("abc"), [[math.nan, math.inf, -math.inf]])
    written = json_text(
        replace(page(), sections=(Section("s", tables=(table,)),)).to_dict()
    )

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(written, parse_constant=refuse)
    row = content["sections"][0]["tables"][0]["rows"][0]
    assert row == [None, "Infinity", "-Infinity"]


def test_hostile_names_survive_and_stay_inside():
    written = json_text(hostile_page().to_dict())
    assert written.isascii()
    assert not set("<>&") & set(written)
    rows = json.loads(written)["sections"][1]["tables"][0]["rows"]
    assert [row[0] for row in rows] == HOSTILE


def test_equal_content_gives_equal_json():
    assert json_text(page().to_dict()) == json_text(page().to_dict())
    assert json_text(page().to_dict()) != json_text(page(4).to_dict())


@pytest.mark.parametrize("names", [("norms", "norms"), ("Class norms", "class-norms")])
def test_two_pictures_of_one_name_are_refused(names):
    pictures = tuple(Picture(name, "t", "c", "a", lambda: None) for name in names)
    with pytest.raises(ValueError, match="different names"):
        Page(
            "t",
            "",
            "v",
            None,
            (Section("a", pictures=pictures[:1]), Section("b", pictures=pictures[1:])),
        )


def test_a_page_without_findings_says_so():
    assert PAGES["empty"]().badge == "no findings"
    assert page().badge == "problem"
