import dataclasses

import pytest

from layerpeel.reports.html import render_fragment, render_html
from layerpeel.reports.page import Section
from layerpeel.reports.table import Table
from tests.browser import Picture, assert_readable, chromium, inspect_page, page_state
from tests.reports.samples import HOSTILE, PAGES, html, page

SCHEMES = {"light": "rgb(245, 246, 248)", "dark": "rgb(15, 19, 25)"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=PAGES)
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html(request.param), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_is_readable_in_every_window(saved, width, scheme, browser):
    state = inspect_page(saved, width, scheme, browser=browser)
    assert state.background == SCHEMES[scheme]


TABLE_BOXES = """
() => [...document.querySelectorAll(".lp-scroll")].map(
    e => [e.querySelectorAll("tbody tr").length, e.scrollHeight - e.clientHeight])
"""


@pytest.mark.parametrize("width", [360, 420, 1100])
def test_only_tables_of_many_rows_scroll_up_and_down(width, tmp_path, browser):
    # Two words in a cell make rows of several lines where the window is narrow.
    text = "a cell of several words"
    tables = [
        Table(
            f"{rows} rows", list("abcdefgh"), [[f"{text} {i}"] * 8 for i in range(rows)]
        )
        for rows in (1, 8, 24, 25)
    ]
    sections = (Section("Tables", tables=tables),)
    path = tmp_path / "report.html"
    path.write_text(render_html(dataclasses.replace(page(), sections=sections)))
    opened = browser.new_page(viewport={"width": width, "height": 900})
    opened.goto(path.as_uri())
    boxes = opened.evaluate(TABLE_BOXES)
    opened.close()
    assert [rows for rows, hidden in boxes if hidden > 0] == [25]
    assert len(boxes) == 4


def test_a_page_is_the_same_without_scripts(saved, browser):
    with_scripts = inspect_page(saved, 1280, "light", browser=browser)
    without = inspect_page(saved, 1280, "light", javascript=False, browser=browser)
    assert with_scripts == without


def test_names_are_shown_and_not_obeyed(tmp_path, browser):
    path = tmp_path / "report.html"
    path.write_text(html("hostile names"), encoding="utf-8")
    state = inspect_page(path, 1280, "dark", browser=browser)
    assert len(state.pictures) == 4
    for name in HOSTILE[:7]:
        assert name in state.text
    assert "49" not in state.text.split("Classes")[1].split("A wide table")[0]


def test_a_fragment_leaves_the_page_around_it_alone(tmp_path, browser):
    around = "<p>before</p><table><tr><th>a</th><td>b</td></tr></table><h1>title</h1>"
    alone, hosting = tmp_path / "alone.html", tmp_path / "hosting.html"
    style = """
        [...document.querySelectorAll("body > :not(.lp), body > table *")]
            .map(e => JSON.stringify([...getComputedStyle(e)]
            .map(p => [p, getComputedStyle(e).getPropertyValue(p)])
            .filter(([p]) => !/origin|block-size|inline-size|height|width/.test(p))))
    """
    alone.write_text(f"<!doctype html><meta charset=utf-8><body>{around}")
    fragment = render_fragment(page())
    hosting.write_text(f"<!doctype html><meta charset=utf-8><body>{around}{fragment}")
    looks = []
    for path in (alone, hosting):
        opened = browser.new_page()
        opened.goto(path.as_uri())
        looks.append(opened.evaluate(style))
        opened.close()
    assert looks[0] == looks[1]
    inspect_page(hosting, 1280, "dark", browser=browser)


def test_what_must_hold_can_fail(tmp_path, browser):
    path = tmp_path / "report.html"
    path.write_text(
        "<!doctype html><style>p{color:#bbb;width:4000px}</style><p>pale and wide</p>"
        "<img src='missing.png'><script>throw new Error('seen')</script>"
    )
    state = page_state(path, 360, "light", browser=browser)
    assert state.requests == [(tmp_path / "missing.png").as_uri()]
    assert "seen" in "".join(state.errors)
    fine = dataclasses.replace(
        state, errors=[], requests=[], scroll_width=0, contrasts=[(9, "")]
    )
    assert_readable(fine)
    for broken in (
        {"errors": state.errors},
        {"requests": state.requests},
        {"scroll_width": state.scroll_width},
        {"contrasts": state.contrasts},
        {"pictures": [Picture("beyond the edge", 0, state.client_width + 1, 99)]},
        {"pictures": [Picture("empty", 0, 300, 0)]},
        {"pictures": [Picture("scrolled away", 300, 310, 99)]},
    ):
        with pytest.raises(AssertionError):
            assert_readable(dataclasses.replace(fine, **broken))
    with pytest.raises(AssertionError):
        inspect_page(path, 360, "light", browser=browser)


@pytest.mark.parametrize(
    ("required", "outcome"),
    [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)],
)
def test_a_missing_browser_skips_unless_it_is_required(required, outcome, monkeypatch):
    monkeypatch.setenv("LAYERPEEL_REQUIRE_BROWSER", required)
    monkeypatch.setattr("shutil.which", lambda command: None)
    with pytest.raises(outcome, match="is installed"), chromium():
        pass
