import json
import math
import warnings

import numpy as np
import pytest
import torch

from layerpeel import _figures
from layerpeel._checks import UndefinedWarning
from layerpeel.studies.families import CURVES, WidthFamily

NAN = math.nan
WIDTHS = (16, 32, 64, 128)


def power(exponent, floor=0.02, prefactor=0.5):
    return [floor + prefactor * w**-exponent for w in WIDTHS]


def family(**changes):
    rows = torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)
    falling = torch.tensor(power(0.7), dtype=torch.float64)
    steeper = torch.tensor(power(1.5), dtype=torch.float64)
    content = {
        "widths": WIDTHS,
        "chunk_widths": WIDTHS,
        "independent": falling[:, None] * (1 + rows),
        "ensembles": torch.tensor([[NAN], [NAN], [0.03], [0.025]], dtype=torch.float64),
        "members": (8, 4, 2, 1),
        "whole": falling,
        "raw": steeper[:, None] * (1 + rows),
        "folded": falling[:, None] * (1 + 0.5 * rows),
        "error_inf": 0.02,
        "folded_on": "train_loader",
        "samples": 1000,
        "least_width": 1,
    }
    return WidthFamily(**(content | changes))


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve_of(ax, start):
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith(start)]
    return line


def test_means_and_spreads_are_those_of_what_is_there():
    table = torch.tensor([[0.1, 0.3, NAN], [0.2, NAN, NAN], [NAN] * 3, [0.1, 0.2, 0.6]])
    found = family(independent=table.double())
    expected = [np.mean([0.1, 0.3]), 0.2, NAN, np.mean([0.1, 0.2, 0.6])]
    np.testing.assert_allclose(found.mean("independent"), expected, rtol=1e-6)
    spread = [np.std([0.1, 0.3], ddof=1), NAN, NAN, np.std([0.1, 0.2, 0.6], ddof=1)]
    np.testing.assert_allclose(found.spread("independent"), spread, rtol=1e-6)


def test_laws_recover_what_was_planted():
    found = family()
    for curve, exponent in (("raw", 1.5), ("folded", 0.7), ("independent", 0.7)):
        law = found.law(curve)
        assert law.exponent.value == pytest.approx(exponent, rel=1e-6)
        assert law.prefactor.value == pytest.approx(0.5, rel=1e-5)
        assert law.asymptote.value == 0.02
        assert exponent in law.exponent
    # Without an error to be above it is fitted too.
    free = family(error_inf=NAN).law("independent")
    assert free.asymptote.value == pytest.approx(0.02, rel=1e-4)
    assert found.law("raw", least_width=32).widths == (32, 64, 128)
    assert family(least_width=64).law("raw").widths == (64, 128)
    # Two ensembles have no error; two are left.
    assert found.law("ensembles").widths == (64, 128)


def test_a_curve_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="`curve` must be one of 'raw'"):
        family().mean("chunks")


def test_the_frame_has_a_row_per_curve_and_width():
    found = family()
    frame = found.to_frame()
    assert list(frame["curve"].unique()) == list(CURVES)
    assert len(frame) == 16
    raw = frame[frame["curve"] == "raw"].set_index("width")
    assert raw.loc[64, "count"] == 3
    assert raw.loc[64, "excess"] == pytest.approx(0.5 * 64**-1.5)
    together = frame[frame["curve"] == "ensembles"]
    assert together["members"].tolist() == [8, 4, 2, 1]
    assert together["count"].tolist() == [0, 0, 1, 1]
    assert together["error"].isna().tolist() == [True, True, False, False]


def test_the_dictionary_is_json_without_nan():
    content = family().to_dict()
    text = json.dumps(content, allow_nan=False)
    again = json.loads(text)
    assert again["errors"]["ensembles"][:2] == [[None], [None]]
    assert again["laws"]["raw"]["exponent"]["value"] == pytest.approx(1.5, rel=1e-6)
    assert again["members"] == [8, 4, 2, 1]
    assert set(again["errors"]) == set(CURVES)


def test_the_picture_shows_excess_errors_on_logarithmic_axes():
    found = family()
    fig, ax = found.plot()
    assert ax.figure is fig
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylabel() == "held-out error above 0.02"
    assert labels_of(ax) == [
        f"{CURVES['raw']} (∝ w^−1.50)",
        f"{CURVES['folded']} (∝ w^−0.70)",
        f"{CURVES['independent']} (∝ w^−0.70)",
        CURVES["ensembles"],
    ]
    drawn = curve_of(ax, CURVES["raw"])
    np.testing.assert_allclose(drawn.get_xdata(), WIDTHS)
    expected = [0.5 * w**-1.5 for w in WIDTHS]
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["16", "32", "64", "128"]
    # A band of one deviation: raw, folded and independent; ensembles are single.
    upper = ax.collections[0].get_paths()[0].vertices[:, 1].max()
    spread = found.spread("raw")[0]
    assert upper == pytest.approx(expected[0] + float(spread))


def test_errors_themselves_are_drawn_where_nothing_is_to_be_above():
    _, ax = family(error_inf=NAN).plot()
    assert ax.get_ylabel() == "held-out error"
    np.testing.assert_allclose(curve_of(ax, CURVES["raw"]).get_ydata(), power(1.5))


def test_what_is_not_above_has_no_point_and_bad_laws_are_not_drawn():
    bent = torch.tensor([[0.9], [0.85], [0.8], [0.021]], dtype=torch.float64)
    low = torch.tensor([[0.5], [0.02], [0.01], [0.03]], dtype=torch.float64)
    none = torch.full((4, 1), 0.01, dtype=torch.float64)
    _, ax = family(raw=bent, independent=low, folded=none).plot()
    shown = labels_of(ax)
    assert shown == [CURVES[name] for name in ("raw", "independent", "ensembles")]
    points = curve_of(ax, CURVES["independent"]).get_ydata()
    np.testing.assert_allclose(points, [0.48, NAN, NAN, 0.01])
    assert len(ax.lines) == 3  # no law beside them


def test_nothing_above_is_an_empty_picture():
    none = torch.full((4, 1), 0.01, dtype=torch.float64)
    found = family(raw=none, independent=none, folded=none, ensembles=none)
    fig, ax = found.plot()
    assert not ax.lines
    fig.canvas.draw()


def test_drawing_into_given_axes_twice_gives_the_same_bytes(tmp_path):
    given = _figures.figure().add_subplot()
    assert family().plot(given)[1] is given
    written = [
        _figures.save(family().plot()[0], tmp_path / f"{i}.svg").read_bytes()
        for i in range(2)
    ]
    assert written[0] == written[1]


def test_values_are_silent_and_fits_are_not():
    few = {"widths": (8,), "chunk_widths": (8,), "members": (1,), "error_inf": NAN}
    one = torch.tensor([[0.1]], dtype=torch.float64)
    tables = dict.fromkeys(("independent", "ensembles", "raw", "folded"), one)
    found = family(**few, **tables, whole=one[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.plot()
        found.to_dict()
        assert "error_inf nan" in repr(found)
    with pytest.warns(UndefinedWarning, match="need as many widths"):
        assert math.isnan(found.law("raw").exponent.value)
