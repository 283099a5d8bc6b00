import re
from xml.etree import ElementTree as ET

import pytest

from layerpeel._figures import axes, colour, figure, plain, style
from layerpeel._look import PALETTE, RAMP, shortened
from layerpeel._svg import slug, to_svg
from tests.reports.samples import HOSTILE, Sample, pictures


def plotted(title="title"):
    with style():
        fig, ax = axes()
        for role in ("majority", "minority"):
            ax.plot([1, 2, 3], [2, 1, 3], "o-", color=colour(role), alpha=0.5)
        ax.set_title(title)
        ax.set_xlabel("x")
    return fig


def drawn(svg):
    return ET.fromstring(svg)


def test_a_fragment_is_one_element_without_a_style_sheet():
    svg = to_svg(plotted(), "norms", 'seen & "read"')
    assert svg.startswith("<svg ")
    assert {"style", "metadata"}.isdisjoint(
        element.tag for element in drawn(svg).iter()
    )
    assert "http" not in svg
    root = drawn(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'seen & "read"'
    assert root.get("viewBox") == "0 0 390 270"
    assert root.get("width") is None


def test_every_colour_follows_the_page():
    for picture in pictures(Sample(6), ["a", "b", "c", "d", "e", "f"]):
        bare = re.sub(r"var\(--lp-[\w-]+, (#\w{6})\)", "", picture.svg())
        assert re.findall(r"#[0-9a-f]{6}\b", bare) == [], picture.name


def test_every_variable_is_the_one_of_its_colour():
    known = {f"--lp-{role}": pair[0] for role, pair in PALETTE.items()}
    known |= {f"--lp-step-{i}": pair[0] for i, pair in enumerate(RAMP)}
    svg = pictures(Sample(6), list("abcdef"))[0].svg()
    used = re.findall(r"var\((--lp-[\w-]+), (#\w{6})\)", svg)
    assert len(set(used)) > 5
    assert all(known[name] == code for name, code in used)


def identifiers(svg):
    return [e.get("id") for e in drawn(svg).iter() if e.get("id")]


def test_identifiers_of_two_pictures_never_meet():
    first, second = (to_svg(plotted(), name) for name in ("one", "two"))
    assert identifiers(first)
    assert set(identifiers(first)).isdisjoint(identifiers(second))
    assert all(name.startswith("one-") for name in identifiers(first))


def test_references_lead_somewhere():
    svg = to_svg(plotted(), "one")
    hrefs = [e.get("href") for e in drawn(svg).iter() if e.get("href")]
    targets = [href[1:] for href in hrefs] + re.findall(r"url\(#([^)]+)\)", svg)
    assert targets
    assert set(targets) == set(identifiers(svg))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_what_they_are(name):
    svg = to_svg(plotted(plain(name, 40)), "hostile", name)
    texts = ["".join(e.itertext()) for e in drawn(svg).iter("text")]
    expected = " ".join(re.sub("[\x00\x1b\ud800]", "\ufffd", name).split())
    assert shortened(expected, 40) in texts
    assert "<script" not in svg
    assert "onload" not in {key for e in drawn(svg).iter() for key in e.attrib}


def test_a_name_that_looks_like_a_colour_stays_text():
    svg = to_svg(plotted("#1c2430 url(#norms-0)"), "norms")
    assert "#1c2430 url(#norms-0)</text>" in svg


def test_cells_are_drawn_without_seams_and_without_pixels():
    svg = pictures(Sample(6), list("abcdef"))[0].svg()
    assert "<image" not in svg
    crisp = [e for e in drawn(svg).iter() if e.get("shape-rendering") == "crispEdges"]
    assert len(crisp) > 5


def test_nothing_is_lost_by_rounding():
    with style():
        fig = figure(200, 100, arranged=False)
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, 200), ylim=(0, 100))
        ax.axis("off")
        ax.plot([10.126, 20.5, 30.25], [50, 60.333, 40])
        ax.fill(
            [100, 150, 150, 100], [20, 20, 70, 70], color=colour("ink"), linewidth=0
        )
    outlines = [e.get("d") for e in drawn(to_svg(fig, "n")).iter("path")]
    assert "M 10.13 50 L 20.5 39.67 L 30.25 60" in outlines
    assert "M100 80H150V30H100z" in outlines


def test_the_caller_s_settings_do_not_matter():
    import matplotlib as mpl

    sample = Sample(4)
    plain_text = pictures(sample, list("abcd"))[1].svg()
    with mpl.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}
    ):
        assert pictures(sample, list("abcd"))[1].svg() == plain_text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Norms (W & H)", "norms-w-h"),
        ("", "unnamed"),
        ("<>", "unnamed"),
        ("a_b", "a-b"),
    ],
)
def test_slug(name, expected):
    assert slug(name) == expected
