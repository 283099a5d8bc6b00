import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import layerpeel
from layerpeel.reports.finding import Severity
from layerpeel.reports.html import render_fragment, render_html
from layerpeel.reports.page import Section
from tests.reports.samples import HOSTILE, PAGES, empty_page, findings, html, page

VOID = {"meta", "br", "img", "link", "input", "hr"}
DRAWN = {"path", "use", "rect"}


class Reader(HTMLParser):
    """Reads a page strictly: every tag closed, in order; collects what matters."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(params=PAGES)
def name(request):
    return request.param


def test_a_page_is_one_well_formed_document(name):
    text = html(name)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    reader = Reader(text)
    assert [
        reader.count(tag) for tag in ("html", "head", "body", "h1", "main", "footer")
    ] == [1] * 6


def test_nothing_comes_from_elsewhere_and_nothing_runs(name):
    text = html(name)
    reader = Reader(text)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "image",
    }
    assert not [
        key for _, attrs in reader.tags for key in attrs if key.startswith("on")
    ]
    assert all(value.startswith("#") for value in reader.values("href"))
    assert reader.values("src") == []
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]


def test_the_policy_allows_what_the_page_needs_and_no_more(name):
    (policy,) = [
        attrs["content"]
        for tag, attrs in Reader(html(name)).tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "style-src 'unsafe-inline'" in policy
    assert "img-src data:" in policy
    assert "script-src" not in policy


def test_identifiers_are_unique_and_references_lead_somewhere(name):
    text = html(name)
    reader = Reader(text)
    identifiers = reader.values("id")
    assert len(set(identifiers)) == len(identifiers)
    targets = {href[1:] for href in reader.values("href")}
    targets |= set(reader.values("aria-labelledby"))
    targets |= {
        target
        for _, attrs in reader.tags
        for value in (attrs.get("style", ""), attrs.get("clip-path", ""))
        for target in re.findall(r"url\(#([^)]+)\)", value or "")
    }
    assert targets <= set(identifiers)


def test_hostile_names_are_shown_as_they_are():
    reader = Reader(html("hostile names"))
    shown = "\n".join(reader.texts)
    for name in HOSTILE:
        assert re.sub("[\x00\x1b\ud800]", "\ufffd", name) in shown
    assert "\ud800" not in html("hostile names")
    html("hostile names").encode()


def test_everything_of_a_finding_is_on_its_card():
    (finding, *_) = findings()
    text = render_html(
        replace(empty_page(), sections=(Section("s", findings=(finding,)),))
    )
    card = text.split("<article")[1].split("</article>")[0]
    shown = " ".join("".join(Reader("<article" + card + "</article>").texts).split())
    for said in (
        finding.code,
        finding.title,
        finding.severity.value,
        finding.measured,
        finding.threshold,
        finding.source,
        finding.action,
        finding.command,
        *finding.explanation.replace("`", "").split("\n\n"),
        finding.docs,
    ):
        assert said in shown
    assert "<code>model</code>" in card


def test_findings_of_one_code_have_their_own_anchors():
    identifiers = Reader(html("ten classes")).values("id")
    assert {"lp001", "lp001-2", "lp004", "lp001-about", "lp001-2-about"} <= set(
        identifiers
    )


def test_tables_name_their_rows_and_columns():
    reader = Reader(html("ten classes"))
    assert reader.count("caption") == reader.count("table") == 4
    scopes = reader.values("scope")
    # Classes, the wide table, and the two of one row.
    assert scopes.count("col") == 5 + 19 + 2 + 2
    assert scopes.count("row") == 10 + 3 + 1 + 1


def test_pictures_are_described():
    reader = Reader(html("ten classes"))
    drawn = [attrs for tag, attrs in reader.tags if tag == "svg"]
    assert [attrs["role"] for attrs in drawn] == ["img"] * 4
    assert all(attrs["aria-label"] for attrs in drawn)
    assert reader.count("figcaption") == reader.count("figure") == 4


@pytest.mark.parametrize("severity", [*Severity, None], ids=str)
def test_the_verdict_says_the_severity_in_words(severity):
    text = render_html(replace(empty_page(), severity=severity))
    word = "no findings" if severity is None else severity.value
    assert f">{word}</span>" in text.split('<div class="lp-verdict-text">')[0]


def test_the_footer_names_the_version():
    footer = html("ten classes").split("<footer")[1]
    assert f"layerpeel {layerpeel.__version__}" in footer
    assert "Measured on the CPU." in footer


def test_empty_parts_leave_no_trace():
    reader = Reader(html("empty"))
    assert not {"figure", "table", "nav", "details", "ul"} & {
        tag for tag, _ in reader.tags
    }


def test_paragraphs_and_code_are_set():
    section = Section("s", "one `a<b`\n\n\ntwo ` three")
    text = render_html(replace(empty_page(), sections=(section,)))
    assert "<p>one <code>a&lt;b</code></p>\n<p>two ` three</p>" in text


def selectors(style):
    """Every selector of a style sheet, also inside of media queries."""
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.S)
    style = re.sub(r"@media[^{]*\{", "", style)
    for rule in re.findall(r"([^{}]+)\{", style):
        yield from (selector.strip() for selector in rule.split(","))


def test_every_rule_of_a_fragment_is_confined_to_it():
    fragment = render_fragment(page(4))
    (style,) = re.findall(r"<style>(.*?)</style>", fragment, re.S)
    found = list(selectors(style))
    assert len(found) > 60
    assert [s for s in found if not re.match(r"\.lp(?=[ .]|$)", s)] == []


def test_a_fragment_is_no_document_and_can_stand_beside_others():
    first, second = render_fragment(page(4)), render_fragment(page(5))
    assert first.startswith('<div class="lp lp-fragment">')
    assert not {"html", "head", "body", "meta", "title"} & {
        t for t, _ in Reader(first).tags
    }
    ours, theirs = (set(Reader(text).values("id")) for text in (first, second))
    assert ours
    assert not ours & theirs
    assert render_fragment(page(4)) == first


def test_the_same_content_gives_the_same_bytes_in_every_process():
    code = (
        "import sys\n"
        "from tests.reports.samples import *\n"
        "from layerpeel.reports.html import *\n"
        "written = render_html(page(5)) + render_fragment(page(5))\n"
        "sys.stdout.buffer.write(written.encode())"
    )
    written = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(written) == 1
    assert len(written.pop()) > 100_000


def test_without_jinja_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"layerpeel\[report\]"):
        render_html(empty_page())


def test_a_strict_reader_refuses_a_broken_page():
    with pytest.raises(AssertionError):
        Reader("<p><b></p></b>")


def test_large_reports_stay_small_files():
    assert len(html("ten classes")) < 250_000
    assert len(html("hundred classes")) < 900_000
