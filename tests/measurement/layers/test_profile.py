import copy
import io
import json
import math
import pickle
import warnings

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from layerpeel import _figures
from layerpeel._checks import MergeError, UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.layers.profile import COLUMNS, LayerProfile
from tests.measurement.layers.networks import CLASSES, cnn, data, mlp, observed, seeded


def profile_of(rows=slice(None), build=cnn, shape=(1, 7, 7), **options):
    x, y = data(shape)
    return observed(seeded(build), x[rows], y[rows], **options)


def assert_close(a, b):
    first, second = a.parts(), b.parts()
    assert first.keys() == second.keys()
    for name, part in first.items():
        if isinstance(part, torch.Tensor):
            torch.testing.assert_close(
                part, second[name], rtol=1e-6, atol=1e-6, msg=name
            )
        else:
            assert part == second[name], name


@pytest.mark.parametrize("cut", [1, 17, 39])
def test_two_shards_merge_to_the_whole(cut):
    a, b = profile_of(slice(cut)), profile_of(slice(cut, None))
    whole = profile_of()
    assert_close(a.merge(b), whole)
    assert_close(b.merge(a), whole)
    for name in COLUMNS:
        torch.testing.assert_close(
            a.merge(b).column(name),
            whole.column(name),
            rtol=1e-5,
            atol=1e-6,
            equal_nan=True,
        )


def test_merge_is_associative_and_empty_is_neutral():
    a, b, c = (profile_of(slice(i, i + 13)) for i in (0, 13, 26))
    assert_close(a.merge(b).merge(c), a.merge(b.merge(c)))
    for merged in (a.merge(LayerProfile.empty()), LayerProfile.empty().merge(a)):
        assert_close(merged, a)


def test_empty_layers_are_neutral():
    layer = profile_of()["2"]
    empty = LayerStatistics.empty(CLASSES, 4, kind="ReLU", fit=True)
    for merged in (layer.merge(empty), empty.merge(layer)):
        assert_close(merged, layer)


def test_what_was_measured_otherwise_is_refused():
    whole = profile_of()
    for other, match in {
        profile_of(maps="flattened"): "`maps`; got 'pooled' and 'flattened'",
        profile_of(layers=["0", "1"]): "only one has 2, 3, 4, 7",
        profile_of(covariance_limit=4): "`covariance`",
        profile_of(classes=5): "`count`",
    }.items():
        with pytest.raises(MergeError, match=match):
            whole.merge(other)
    with pytest.raises(MergeError, match="LayerProfile merges with another one"):
        whole.merge(whole["0"])


def test_copies_are_the_same():
    whole = profile_of()
    whole.effective_rank()  # what is remembered does not disturb
    for again in (
        LayerProfile.from_parts(whole.parts()),
        copy.deepcopy(whole),
        pickle.loads(pickle.dumps(whole)),  # noqa: S301 - our own bytes
        whole.to("cpu"),
    ):
        assert_close(again, whole)
        assert again.paths == whole.paths
    with pytest.raises(KeyError):
        LayerProfile.from_parts({})


def test_parts_keep_what_is_missing():
    flat = profile_of(covariance_limit=4)
    again = LayerProfile.from_parts(flat.parts())
    assert again["7"].fit is None
    assert again["3"].covariance is None
    assert again["2"].fit is not None


def test_collapsed_features_have_no_variability():
    frame = simplex_etf(CLASSES)
    model = nn.Sequential(nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(frame)
    y = torch.arange(40) % CLASSES
    layer = observed(model, torch.eye(4).double()[y], y)["0"]
    assert layer.cdnv() == pytest.approx(0, abs=1e-30)
    assert layer.nc1_quotient() == pytest.approx(0, abs=1e-30)
    assert layer.numerical_rank() == 3
    assert layer.effective_rank() == pytest.approx(3)
    assert layer.participation_ratio() == pytest.approx(3)


def test_what_does_not_apply_is_nan_without_a_warning():
    with warnings.catch_warnings(action="error"):
        profile = profile_of()
        assert profile.linearity().isnan().tolist() == [
            True,
            True,
            False,
            True,
            False,
            True,
        ]
        assert profile.dead_units().isnan().sum() == 4
    with pytest.warns(UndefinedWarning, match="elementwise nonlinearities"):
        assert math.isnan(profile["0"].linearity())


def test_what_is_undefined_is_said_once_with_its_layers():
    profile = profile_of(covariance_limit=4)
    with pytest.warns(
        UndefinedWarning, match=r"covariance_limit.*Layers: '3', '4'"
    ) as w:
        ranks = profile.numerical_rank()
    assert len(w) == 1
    assert ranks.isnan().tolist() == [False, False, False, True, True, False]


def test_constant_features_have_no_rank():
    x, y = data((5,))
    model = seeded(mlp)
    with torch.no_grad():
        model[0].weight.zero_()
    profile = observed(model, x, y)
    assert profile["0"].numerical_rank() == 0
    with pytest.warns(UndefinedWarning, match="constant features") as caught:
        assert profile.effective_rank().isnan().all()
    assert len(caught) == 1
    with pytest.warns(UndefinedWarning, match="every unit is constant"):
        assert profile.linearity().isnan().all()
    with pytest.warns(UndefinedWarning, match="coincide"):
        assert profile.nc1_quotient().isnan().all()


def test_a_layer_is_found_by_its_path():
    profile = profile_of()
    assert profile["2"].kind == "ReLU"
    assert list(profile) == list(profile.paths)
    with pytest.raises(KeyError, match=r"no layer at '22'.*'2'"):
        profile["22"]
    with pytest.raises(ValueError, match="Did you mean 'cdnv'"):
        profile.column("cdn")


def test_conventions_are_arguments():
    x, y = data((5,), n=40)
    y = torch.where(y == 3, 0, y)  # class 0 twice as often
    profile = observed(seeded(mlp), x, y, classes=3)
    values = {
        (c, p): profile["1"].nc1_quotient(c, p)
        for c in ("sample", "class")
        for p in ("pooled", "class")
    }
    assert len({round(v, 9) for v in values.values()}) == 4
    assert torch.isfinite(profile.nc1_quotient("class", "class")).all()
    with pytest.raises(ValueError, match="pooling"):
        profile["1"].nc1_quotient(pooling="all")


def test_as_text():
    profile = profile_of()
    content = profile.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["layers"][2]["kind"] == "ReLU"
    assert content["layers"][0]["linearity"] is None
    assert set(content["layers"][0]) == {"path", "kind", "width", *COLUMNS}
    assert "\n" not in repr(profile)
    assert repr(profile).startswith(
        "LayerProfile(6 layers, 40 samples, maps pooled, NC1"
    )
    assert (
        repr(LayerProfile.empty()) == "LayerProfile(0 layers, 0 samples, maps pooled)"
    )


def test_as_a_frame():
    frame = profile_of().to_frame()
    assert list(frame.index) == ["0", "1", "2", "3", "4", "7"]
    assert list(frame.columns) == ["kind", "width", *COLUMNS]
    assert frame.loc["2", "linearity"] == profile_of()["2"].linearity()


def curves(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_the_picture_shows_the_columns():
    profile = profile_of()
    fig, first = profile.plot()
    collapse, ranks, units = fig.axes
    assert first is collapse
    drawn = {
        (collapse, "CDNV"): profile.cdnv(),
        (collapse, "NC1 quotient"): profile.nc1_quotient(),
        (ranks, "numerical rank"): profile.numerical_rank(),
        (ranks, "effective rank"): profile.effective_rank(),
        (ranks, "participation ratio"): profile.participation_ratio(),
        (ranks, "width"): profile.widths(),
        (units, "linearity, least unit"): profile.linearity(),
        (units, "linearity, median unit"): profile.median_linearity(),
        (units, "on/off entropy"): profile.on_off_entropy(),
    }
    for (ax, name), values in drawn.items():
        assert curves(ax)[name].tolist() == pytest.approx(values.tolist(), nan_ok=True)
    assert curves(ranks)["K − 1 = 3"][0] == 3
    names = [text.get_text() for text in units.get_xticklabels()]
    assert names == list(profile.paths)
    assert collapse.get_yscale() == "log"


def test_the_same_profile_gives_the_same_bytes(tmp_path):
    files = [
        _figures.save(profile_of().plot()[0], tmp_path / name)
        for name in ("a.svg", "b.svg")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("panel", [None, "collapse", "ranks", "units"])
def test_one_panel_in_the_axes_of_the_caller(panel):
    own = Figure()
    ax = own.add_subplot()
    fig, drawn = profile_of().plot(ax, panel=panel)
    assert (fig, drawn) == (own, ax)
    assert len(own.axes) == 1
    label = {None: "variability", "ranks": "dimensions", "units": "nonlinearities"}
    assert ax.get_ylabel() == label.get(panel, "variability")


def test_pictures_of_odd_profiles():
    x, y = data((5,))
    with torch.no_grad():
        constant = seeded(mlp)
        constant[0].weight.zero_()
    deep = nn.Sequential(*[nn.Linear(5, 5) for _ in range(45)])
    for model, layers in ((constant, "all"), (seeded(mlp), [""]), (deep, "all")):
        with warnings.catch_warnings(action="error"):
            fig, _ = observed(model, x, y, layers=layers).plot()
            fig.savefig(io.BytesIO())
    with pytest.raises(ValueError, match="must have layers"):
        LayerProfile.empty().plot()
    with pytest.raises(ValueError, match="Did you mean 'ranks'"):
        profile_of().plot(panel="rank")
