import io
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import layerpeel as lp
from layerpeel._figures import save
from layerpeel.measurement.clones.profile.picture import PANELS
from tests.measurement.clones.layers import normal


def layer(samples=90, width=16):
    signals = normal(samples, 3)
    h = signals @ normal(3, width, seed=1) + 0.1 * normal(samples, width, seed=2)
    weight = normal(3, width, seed=3)
    return h, (h @ weight.T).argmax(1), weight


def profile(*, held_out=True, errors=True, **options):
    h, y, weight = layer()
    given = {"labels": y[:60], "weight": weight} if errors else {}
    if held_out:
        given |= {"eval_features": h[60:]}
        given |= {"eval_labels": y[60:]} if errors else {}
    return lp.clone_profile_features(h[:60], repeats=4, **given, **options)


def labels(ax):
    return {text.get_text() for text in ax.get_legend().get_texts()}


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


@pytest.fixture(scope="module")
def full():
    return profile()


def test_all_panels_stand_one_above_another(full):
    fig, first = full.plot()
    panels = fig.axes
    assert [ax.get_ylabel() for ax in panels] == [
        "error",
        "R²",
        "residual |correlation|",
    ]
    assert first is panels[0]
    assert [ax.get_xscale() for ax in panels] == ["log"] * 3
    assert [ax.get_yscale() for ax in panels] == ["log", "linear", "log"]
    assert panels[-1].get_xlabel() == "neurons of a chunk, of 16"
    assert [t.get_text() for t in panels[-1].get_xticklabels()] == [
        "1",
        "2",
        "4",
        "8",
        "16",
    ]
    tops = [ax.get_position().y0 for ax in panels]
    assert tops == sorted(tops, reverse=True)


def test_curves_are_means_over_chunks(full):
    ax = full.plot(panel="errors")[1]
    drawn = lines(ax)
    for name, values in (
        ("raw, held-out", full.held_out.raw.mean(1)),
        ("folded, held-out", full.held_out.folded.mean(1)),
        ("raw, training", full.fitted.raw.mean(1)),
        ("raw, expected", full.held_out.expected),
    ):
        assert drawn[name].get_xdata().tolist() == list(full.widths)
        np.testing.assert_allclose(drawn[name].get_ydata(), values)
    network = f"the network: {full.held_out.full_error:.3g}"
    assert set(drawn[network].get_ydata()) == {full.held_out.full_error}
    ax = full.plot(panel="reconstruction")[1]
    drawn = lines(ax)
    expected = full.held_out.r_squared["complement"].mean(1)[:-1]
    np.testing.assert_allclose(drawn["chunks"].get_ydata(), expected)
    rotated = drawn["random rotations"]
    assert rotated.get_xdata().tolist() == [1, 2, 4, 8]
    np.testing.assert_allclose(rotated.get_ydata(), full.spectrum.r_squared.mean(1))
    drawn = lines(full.plot(panel="residuals")[1])
    np.testing.assert_allclose(drawn["noise floor"].get_ydata(), full.floor)


def test_the_critical_width_is_marked_where_there_is_one(full):
    ax = full.plot()[1]
    width = full.critical_width
    label = f"critical width {width:.0f}: {full.num_clones:.3g} clone"
    label += "s" if full.num_clones > 1 else ""
    assert label in labels(ax)
    assert set(lines(ax)[label].get_xdata()) == {width}
    for panel in full.plot()[0].axes[1:]:
        assert any(set(line.get_xdata()) == {width} for line in panel.get_lines())


def test_a_critical_width_beyond_those_measured_is_not_marked():
    found = profile(widths=[1, 2])
    ax = found.plot()[1]
    assert not any("critical" in text for text in labels(ax))


def test_bands_are_a_deviation_to_either_side(full):
    ax = full.plot(panel="reconstruction")[1]
    table = full.held_out.r_squared["complement"][:-1]
    low, high = table.mean(1) - table.std(1), table.mean(1) + table.std(1)
    vertices = ax.collections[0].get_paths()[0].vertices
    for i, w in enumerate(full.widths[:-1]):
        at = vertices[vertices[:, 0] == w][:, 1]
        assert at.min() == pytest.approx(float(low[i]))
        assert at.max() == pytest.approx(float(high[i]))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("errors", [False, True])
def test_panels_are_those_that_there_is_something_for(held_out, errors):
    fig, ax = profile(held_out=held_out, errors=errors).plot()
    assert len(fig.axes) == 2 + errors
    assert ax.get_ylabel() == ("error" if errors else "R²")
    if errors:
        where = "held-out" if held_out else "training"
        assert f"raw, {where}" in labels(ax)
        assert len([text for text in labels(ax) if "training" in text]) == (
            1 if held_out else 2
        )


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_drawn_into_the_axes_that_are_given(full, panel):
    own = Figure().add_subplot()
    fig, ax = full.plot(own, panel)
    assert (ax is own, fig is own.figure) == (True, True)
    assert len(fig.axes) == 1
    assert ax.get_xlabel() == "neurons of a chunk, of 16"
    assert Figure().add_subplot() is not full.plot(Figure().add_subplot())[1]
    assert full.plot(Figure().add_subplot())[1].get_ylabel() == "error"


@pytest.mark.parametrize(
    "options",
    [
        {"widths": [4]},
        {"widths": [16]},
        {"widths": "all"},
        {"scope": "all"},
        {"paper": True},
    ],
    ids=str,
)
def test_any_widths_and_scope_can_be_drawn(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.UndefinedWarning)
        found = profile(**options)
        fig, _ = found.plot()
    fig.savefig(io.BytesIO(), format="svg")
    ticks = [t.get_text() for t in fig.axes[-1].get_xticklabels()]
    expected = [w for w in found.widths if w & (w - 1) == 0]
    assert ticks == [
        str(w) for w in (expected if options == {"widths": "all"} else found.widths)
    ]


def test_errors_of_zero_can_be_drawn():
    h = normal(60, 8).repeat(1, 2)
    found = lp.clone_profile_features(
        h, torch.zeros(60, dtype=torch.int64), weight=torch.zeros(2, 16), repeats=2
    )
    assert found.fitted.full_error == 0
    fig, ax = found.plot()
    fig.savefig(io.BytesIO(), format="svg")
    assert ax.get_yscale() == "linear"


def test_an_untrained_copy_is_drawn_beside():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )
    loader = [(normal(40, 4).float(), torch.arange(40) % 2)]
    found = lp.clone_profile(model, loader, repeats=2)
    drawn = lines(found.plot(panel="reconstruction")[1])["untrained copy"]
    expected = found.untrained.r_squared["complement"].nanmean(1)[:-1]
    np.testing.assert_allclose(drawn.get_ydata(), expected)


def test_the_same_profile_is_the_same_file(full, tmp_path):
    paths = [save(full.plot()[0], tmp_path / f"{i}.svg") for i in range(2)]
    again = save(profile().plot()[0], tmp_path / "again.svg")
    assert paths[0].read_bytes() == paths[1].read_bytes() == again.read_bytes()


def test_refuses_panels_that_there_are_not(full):
    with pytest.raises(ValueError, match="Did you mean 'errors'"):
        full.plot(panel="error")


def test_independent_networks_stand_beside_chunks(full):
    ax = full.plot(panel="errors", independent={8: 0.25, 2: 0.5})[1]
    (line,) = [one for one in ax.lines if one.get_label() == "independent networks"]
    assert line.get_xdata().tolist() == [2, 8]
    assert line.get_ydata().tolist() == [0.5, 0.25]
    assert "independent networks" not in labels(full.plot(panel="errors")[1])
