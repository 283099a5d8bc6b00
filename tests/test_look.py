from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from layerpeel._look import (
    PALETTE,
    RAMP,
    STEPS,
    STRONG,
    css_of,
    plain,
    printable,
    shortened,
    style,
    variables,
)

SCHEMES = {"light": 0, "dark": 1}

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISIONS = {
    "common": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(code):
    values = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def contrast(first, second):
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (first, second))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("front", "back"),
    [
        *[
            (front, back)
            for front in ("ink", "muted")
            for back in ("surface", "page", "code")
        ],
        *[
            (role, "surface")
            for role in ("majority", "minority", "measured", "predicted")
        ],
        *[(role, f"{role}-tint") for role in ("problem", "warning", "note", "fine")],
        ("note", "page"),
    ],
)
def test_text_contrasts_as_wcag_aa_asks_for(front, back, scheme):
    column = SCHEMES[scheme]
    assert contrast(PALETTE[front][column], PALETTE[back][column]) >= 4.5


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_drawn_role_is_seen(scheme):
    column = SCHEMES[scheme]
    for role in ("majority", "minority", "measured", "predicted", "ideal"):
        assert contrast(PALETTE[role][column], PALETTE["surface"][column]) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("vision", VISIONS)
def test_roles_stay_apart_in_every_vision(vision, scheme):
    roles = ("majority", "minority", "measured", "predicted", "ideal")
    seen = {
        role: oklab(np.array(VISIONS[vision]) @ linear(PALETTE[role][SCHEMES[scheme]]))
        for role in roles
    }
    for first, second in combinations(roles, 2):
        # 0.02 is just noticeable.
        assert np.linalg.norm(seen[first] - seen[second]) > 0.07, (first, second)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ramp_gets_ever_farther_from_the_background(scheme):
    column = SCHEMES[scheme]
    strengths = [contrast(pair[column], PALETTE["surface"][column]) for pair in RAMP]
    low, high = strengths[: STEPS + 1], strengths[STEPS:]
    assert low == sorted(low, reverse=True)
    assert high == sorted(high)
    assert min(low[0], high[-1]) > 7 > 1.3 > strengths[STEPS]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_numbers_are_read_on_every_step(scheme):
    column = SCHEMES[scheme]
    for step, pair in enumerate(RAMP):
        role = "surface" if abs(step - STEPS) > STRONG else "ink"
        # No colour has more than 4 against both; at that one, text changes sides.
        assert contrast(PALETTE[role][column], pair[column]) > 3.6, step


def test_a_drawn_colour_means_one_role():
    drawn = [pair[0] for pair in (*PALETTE.values(), *RAMP)]
    assert len(set(drawn)) == len(drawn)


def test_css_falls_back_to_what_was_drawn():
    assert css_of("#1C2430") == "var(--lp-ink, #1C2430)"
    assert css_of(RAMP[3][0]) == f"var(--lp-step-3, {RAMP[3][0]})"
    assert css_of("#123456") == "#123456"
    assert css_of("none") == "none"


def test_variables_name_all_roles_in_both_schemes():
    assert "--lp-ink: #1c2430;" in variables("light")
    assert "--lp-ink: #e6eaf0;" in variables("dark")
    assert variables("dark").count(";") == len(PALETTE) + len(RAMP)
    with pytest.raises(ValueError, match="sepia"):
        variables("sepia")


def test_style_is_the_same_for_all_and_leaves_nothing_behind():
    with mpl.rc_context({"font.size": 31, "axes.grid": False, "text.usetex": True}):
        before = dict(mpl.rcParams)
        with style("salt"):
            assert mpl.rcParams["font.size"] == 10.5
            assert mpl.rcParams["text.usetex"] is False
            assert mpl.rcParams["svg.hashsalt"] == "salt"
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab\n\tc", "ab\n\tc"),
        ("\x00\x1b\x7f\x9b", "\ufffd" * 4),
        ("\ud800", "\ufffd"),
        ("naïve 😀 大", "naïve 😀 大"),
    ],
)
def test_printable_keeps_what_can_be_written(text, expected):
    assert printable(text) == expected
    printable(text).encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("$x$", r"\$x\$"),
        ("two\n lines", "two lines"),
        ("abcdefghijk", "abcdefgh…"),
        ("a$bcdefghijk", r"a\$bcdefg…"),
    ],
)
def test_plain_names_are_short_and_not_formulas(text, expected):
    assert plain(text, 9) == expected


def test_shortened_keeps_what_fits():
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
