import math
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from layerpeel._checks import UndefinedWarning
from layerpeel._figures import to_svg
from layerpeel._look import RAMP
from layerpeel.program.pairs.phase_diagram import phase_diagram
from layerpeel.program.pairs.thresholds import collapse_threshold, vanishing_threshold

SIZES = [(5, 5), (7, 3), (1, 4), (90, 10)]


def drawn(sizes, **grids):
    grids = {"imbalance": np.geomspace(1, 1e4, 60)} | grids
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        diagram = phase_diagram(*sizes, **grids)
    return diagram, *diagram.plot()


def pixel(fig, ax, ratio, energy):
    """The colour that is seen at a place, texts and lines aside."""
    for text in ax.texts:
        text.set_visible(False)
    for line in ax.lines:
        line.set_visible(False)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    x, y = ax.transData.transform((ratio, energy))
    image = np.asarray(canvas.buffer_rgba())
    return to_hex(image[len(image) - 1 - round(y), round(x)] / 255)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_borders_are_the_thresholds(sizes):
    _, _, ax = drawn(sizes)
    equal, zero = ax.lines
    majority, minority = sizes
    for line, threshold in ((equal, collapse_threshold), (zero, vanishing_threshold)):
        for ratio, energy in list(zip(*line.get_data(), strict=True))[::40]:
            expected = threshold(
                majority=majority, minority=minority, energy=(1.0, energy)
            )
            if expected < 1e200:
                assert ratio == pytest.approx(expected, rel=1e-9)


def is_blank(code):
    """White, or the light grey of the hatching over it."""
    channels = [int(code[i : i + 2], 16) for i in (1, 3, 5)]
    light, grey = min(channels) >= 0xD3, max(channels) - min(channels) <= 0xE1 - 0xD3
    return light and grey and code != RAMP[len(RAMP) // 2][0]


def test_colours_say_the_cosine_and_the_phase():
    diagram, fig, ax = drawn((5, 5))
    assert pixel(fig, ax, 1e3, 10.0) == RAMP[-1][0]  # equal
    lightest = RAMP[len(RAMP) // 2][0]
    assert pixel(fig, ax, 1.1, 40.0) == lightest  # balanced
    assert is_blank(pixel(fig, ax, 1e3, 2.95))  # zero
    # In between, the step of the ramp that the cosine of the cell belongs to.
    rungs = np.linspace(-1 / 9 - 10 / 9, 1, len(RAMP) + 1)
    for row, column in [(150, 18), (170, 45), (140, 30), (190, 58)]:
        cosine = float(diagram.minority_cosine[row, column])
        step = np.searchsorted(rungs, cosine) - 1
        place = float(diagram.imbalance[column]), float(diagram.energy[row])
        seen = np.array(to_rgb(pixel(fig, ax, *place)))
        ramp = np.array([to_rgb(light) for light, _ in RAMP])
        assert abs(np.abs(ramp - seen).sum(axis=1).argmin() - step) <= 1


def test_a_coarse_grid_has_exact_borders_too():
    grid = {"imbalance": np.geomspace(1, 100, 4), "energy": np.geomspace(1, 30, 4)}
    _, fig, ax = drawn((5, 5), **grid)
    for energy in (1.7, 4.0, 9.0):
        threshold = collapse_threshold(majority=5, minority=5, energy=(1.0, energy))
        assert pixel(fig, ax, threshold * 1.05, energy) == RAMP[-1][0]
        assert pixel(fig, ax, 1 + 0.5 * (threshold - 1), energy) != RAMP[-1][0]


def test_phases_and_borders_are_named_where_there_is_room():
    texts = {t.get_text().replace("\n", " ") for t in drawn((5, 5))[2].texts}
    assert texts == {
        "classifiers differ",
        "all equal from R₀ on",
        "all zero from R₁ on",
        "R₀",
        "R₁",
    }
    texts = {t.get_text().replace("\n", " ") for t in drawn((1, 4))[2].texts}
    assert "all zero from R₁ on" not in texts
    assert "R₁" not in texts


def test_axes_are_logarithmic_and_say_what_they_are():
    diagram, _, ax = drawn((7, 3))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlim() == pytest.approx((1, 1e4))
    assert ax.get_ylim() == pytest.approx(diagram.energy[[0, -1]].tolist())
    assert "imbalance" in ax.get_xlabel()
    assert "E_W E_H" in ax.get_ylabel()
    assert "7 + 3 classes" in ax.get_title(loc="left")


def test_draws_into_the_axes_of_the_caller():
    host = Figure()
    ax = host.add_subplot(1, 2, 1)
    before = dict(mpl.rcParams)
    diagram = phase_diagram(1, 3, imbalance=[1.0, 3.0], energy=[1.0, 2.0])
    assert diagram.plot(ax) == (host, ax)
    assert dict(mpl.rcParams) == before


def test_svg_is_reproducible_small_and_follows_the_page():
    _, fig, _ = drawn((5, 5))
    text = to_svg(fig, "phases")
    assert text == to_svg(drawn((5, 5))[1], "phases")
    assert len(text) < 200_000
    assert "var(--lp-step-40" in text
    assert "R₀" in text


def test_a_grid_within_one_phase_is_drawn():
    apart = {"imbalance": [1.0, 1.5], "energy": [80.0, 90.0]}
    _, fig, ax = drawn((5, 5), **apart)
    assert [t.get_text() for t in ax.texts] == ["classifiers\ndiffer"]
    gone = {"imbalance": [1e3, 1e4], "energy": [0.1, 0.2]}
    _, fig, ax = drawn((5, 5), **gone)
    assert is_blank(pixel(fig, ax, 3e3, 0.15))
    assert math.isfinite(ax.get_xlim()[0])
