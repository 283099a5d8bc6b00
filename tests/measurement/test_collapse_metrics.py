import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.geometry import general_orthogonal_frame, orthogonal_frame
from layerpeel.measurement import ClassMoments, measure_features
from layerpeel.measurement.metrics.bias import bias_distance
from layerpeel.measurement.metrics.margins import class_margins
from layerpeel.measurement.metrics.nc3 import duality_cosines, nc3, nc3_product
from layerpeel.measurement.statistics.conventions import centred_means, global_mean
from tests.measurement.collapsed import collapsed, measured
from tests.measurement.test_measurement import imbalanced
from tests.measurement.test_metrics import blobs


def on_frame(frame, scale=2.0):
    """Features on the rows of a frame, and classifiers along them."""
    y = torch.arange(3 * len(frame)) % len(frame)
    return measure_features(scale * frame[y], y, weight=frame)


def test_everything_vanishes_under_collapse():
    m = measured(shift=100.0)
    values = {
        "rows": m.nc3(normalisation="rows"),
        "product": m.nc3_product(),
        "bias": m.bias_distance(),
        "duality": float((1 - m.duality_cosines()).abs().max()),
        "nc5": m.nc5(100.0 + turned_axis()),
    }
    assert max(values.values()) < 1e-10, values
    # <w_k, h> = 3 and -1 for the other classes: K/(K - 1) = 4/3 for unit vectors.
    for unit, expected in (
        ("logits", 4),
        ("cosine", 4 / 3),
        ("boundary", 1.5 * (8 / 3) ** 0.5),
    ):
        np.testing.assert_allclose(m.class_margins(unit), expected, rtol=1e-9)


def turned_axis():
    """A direction orthogonal to all class means of the collapsed features."""
    _, _, frame, _ = collapsed()
    return torch.linalg.svd(frame)[2][-1]


def test_orthogonal_frames_are_measured_uncentred():
    m = on_frame(orthogonal_frame(4, 6))
    for of in ("classifiers", "class_means"):
        assert m.orthogonal_distance(of) < 1e-14
        assert m.general_orthogonal_distance(of) < 1e-14
        assert m.orthogonal_distance(of, "sample", centred=True) > 0.1
    assert m.nc3_product("orthogonal") < 1e-14
    assert m.nc2_means().gram < 1e-14  # without its mean it is a simplex


def test_general_orthogonal_frames_take_predicted_lengths():
    m = on_frame(general_orthogonal_frame([1.0, 2.0, 3.0], width=5))
    assert m.general_orthogonal_distance() < 1e-14
    assert m.general_orthogonal_distance("classifiers", [2.0, 4.0, 6.0]) < 1e-14
    assert m.general_orthogonal_distance("class_means", [1.0, 1.0, 1.0]) > 0.1
    assert m.orthogonal_distance() > 0.1


def test_conventions_reach_the_functions():
    h, y, W, b = blobs(classes=5, width=6, shift=3.0, absent=(2,))
    with pytest.warns(UndefinedWarning, match="1 of 5"):
        m = measure_features(h, y, weight=W, bias=b)
    W, c = m.weight, m.weight - m.weight.mean(0)
    for centring in ("sample", "class", "none"):
        M = centred_means(m.moments, centring)
        for centred, rows in ((True, c), (False, W)):
            kwargs = {"centred": centred}
            assert m.nc3(centring, normalisation="rows", **kwargs) == nc3(
                rows, M, "rows"
            )
            cosines = m.duality_cosines(centring, **kwargs)
            torch.testing.assert_close(
                cosines, duality_cosines(rows, M), equal_nan=True
            )
    raw, about = (centred_means(m.moments, centring) for centring in ("none", "sample"))
    assert m.nc3_product() == nc3_product(c, about)
    assert m.nc3_product("orthogonal") == nc3_product(W, raw, "orthogonal")
    for centring in ("sample", "class"):
        mean = global_mean(m.moments, centring)
        assert m.bias_distance(centring) == bias_distance(W, m.bias, mean)
    expected = class_margins(c, None, about, "cosine")
    torch.testing.assert_close(m.class_margins("cosine"), expected, equal_nan=True)
    expected = class_margins(W, m.bias, raw, "boundary")
    torch.testing.assert_close(m.class_margins("boundary"), expected, equal_nan=True)


def test_outside_data_as_moments_or_as_a_mean():
    m = imbalanced()
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(1)) + 1
    moments = ClassMoments.of(features, torch.arange(30) % 2, 2)
    mean = features.double().mean(0)
    for centring in ("sample", "class", "none"):
        value = m.nc5(moments, centring)
        assert value == pytest.approx(m.nc5(mean, centring), rel=1e-9)
        assert 0 < value < 1
    moved = replace(
        m, statistics=replace(m.statistics, moments=m.moments.moved(9 + mean))
    )
    assert moved.nc5(9 + 2 * mean) == pytest.approx(m.nc5(mean), rel=1e-9)
    with pytest.raises(ShapeError, match=r"must have shape \(6,\)"):
        m.nc5(torch.zeros(5).double())


LIGHT_METRICS = [
    "nc1_quotient",
    "cdnv",
    "nc2_means",
    "nc2_classifiers",
    "nc3",
    "nc3_product",
    "orthogonal_distance",
    "general_orthogonal_distance",
    "bias_distance",
    "kernel_energy",
    "ranks",
    "nc4",
    "energy",
]


def test_light_mode_has_all_but_the_ratio():
    h, y, W, b = blobs(classes=5, width=6, shift=3.0)
    light = measure_features(h, y, weight=W, bias=b, light=True)
    full = measure_features(h, y, weight=W, bias=b)
    with pytest.warns(UndefinedWarning, match="light"):
        assert math.isnan(light.nc1())
    for name in LIGHT_METRICS:
        assert getattr(light, name)() == getattr(full, name)(), name
    torch.testing.assert_close(light.class_margins(), full.class_margins())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.nc3(normalisation="row"), "`normalisation` must be one of"),
        (lambda m: m.nc3_product("etf"), "`frame` must be one of"),
        (lambda m: m.orthogonal_distance("weights"), "`of` must be one of"),
        (lambda m: m.vectors("classifiers", "mean"), "`centring` must be one of"),
        (
            lambda m: m.bias_distance("none"),
            "`centring` must be one of 'sample', 'class'",
        ),
        (lambda m: m.class_margins("norm"), "`unit` must be one of"),
        (lambda m: m.nc5(torch.zeros(6).double(), "mean"), "`centring` must be one of"),
    ],
)
def test_unknown_choices_are_listed(call, match):
    with pytest.raises(ValueError, match=match):
        call(imbalanced())


@pytest.mark.parametrize("scale", [1e200, 1e-170])
def test_features_of_extreme_scale(scale):
    h, y, W, _ = blobs(classes=4, width=6, shift=1.0)
    m, scaled = (
        measure_features(x.double(), y, weight=W) for x in (h, scale * h.double())
    )
    for value in (
        lambda m: m.nc3(),
        lambda m: m.nc3(normalisation="rows"),
        lambda m: m.nc3_product(),
        lambda m: m.nc2_means().gram,
        lambda m: m.orthogonal_distance("class_means"),
    ):
        assert value(scaled) == pytest.approx(value(m), rel=1e-9)
    for undefined in (scaled.nc1, scaled.nc1_quotient, scaled.cdnv):
        with pytest.warns(UndefinedWarning, match="undefined"):
            assert math.isnan(undefined())


def test_outside_means_are_arrays_or_tensors():
    m = imbalanced()
    mean = np.arange(6.0)
    expected = m.nc5(torch.from_numpy(mean))
    assert m.nc5(mean) == m.nc5(mean.astype(np.float32)) == expected
    assert m.nc5(mean.tolist()) == expected
    with pytest.raises(ShapeError, match=r"must have shape \(6,\)"):
        m.nc5(np.zeros(5))


def test_products_take_conventions():
    m = imbalanced()
    W, c = m.weight, m.weight - m.weight.mean(0)
    raw, about = (centred_means(m.moments, centring) for centring in ("none", "class"))
    assert m.nc3_product("simplex", "none") == nc3_product(c, raw)
    assert m.nc3_product(centred=False, centring="class") == nc3_product(W, about)
    found = m.nc3_product("orthogonal", "class", centred=True)
    assert found == nc3_product(c, about, "orthogonal")
