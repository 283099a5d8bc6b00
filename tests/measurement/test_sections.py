import json
import warnings

import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import measure_features
from tests.measurement.test_layer_metrics import blurred
from tests.measurement.test_metrics import blobs

SECTIONS = {
    "nc1": [
        "ratio",
        "ratio_class_averaged",
        "quotient",
        "quotient_class_averaged",
        "cdnv",
    ],
    "nc2": ["classifiers", "class_means"],
    "duality": [
        "matrix",
        "rows",
        "raw",
        "raw_rows",
        "product",
        "cosines",
        "principal_angle",
    ],
    "bias": ["distance", "distance_centred"],
    "margins": ["logits", "boundary", "cosine"],
    "kernels": ["classifiers", "class_means"],
    "ranks": ["classifiers", "class_means"],
    "one_vs_rest": ["classifiers", "class_means"],
    "angles": ["simplex", "orthogonal"],
}


def numbers(content):
    """All numbers of nested sections."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [n for item in content for n in numbers(item)]
    return [] if isinstance(content, str) else [content]


def test_every_metric_has_its_section():
    content = blurred().to_dict()
    assert {name: list(content[name]) for name in SECTIONS} == SECTIONS
    for name in SECTIONS:
        assert None not in numbers(content[name]), name


def test_numbers_are_those_of_the_methods():
    m = blurred()
    d = m.to_dict()
    assert d["nc2"]["class_means"]["orthogonal"] == m.orthogonal_distance("class_means")
    assert d["duality"]["rows"] == m.nc3(normalisation="rows")
    assert d["duality"]["matrix"] == d["nc3"] == m.nc3()
    assert d["duality"]["raw"] == m.nc3("none", centred=False)
    assert d["bias"]["distance"] == m.bias_distance()
    assert d["margins"]["boundary"] == m.class_margins("boundary").tolist()
    assert (
        d["kernels"]["classifiers"]["log"]["mean"]
        == m.kernel_energy("classifiers").mean
    )
    assert d["ranks"]["class_means"]["numerical"] == 4
    assert d["one_vs_rest"]["classifiers"] == m.one_vs_rest().tolist()
    assert d["angles"]["simplex"]["feature_max"] == m.angles("simplex").feature_max


@pytest.mark.parametrize("classes", [2, 101])
def test_any_number_of_classes_is_json(classes):
    h, y, W, b = blobs(classes=classes, width=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        m = measure_features(h, y, weight=W, bias=b, light=classes > 2)
    content = m.to_dict()
    json.dumps(content, allow_nan=False)
    if classes == 101:
        assert content["angles"] == {"simplex": None, "orthogonal": None}
        assert content["one_vs_rest"] == {"classifiers": None, "class_means": None}
        assert content["nc1"]["ratio"] is None
        assert content["kernels"]["class_means"]["log"]["mean"] is not None


def test_vanished_classifiers_are_json_without_warnings():
    h, y, W, _ = blobs(classes=4, width=6)
    content = measure_features(h, y, weight=torch.zeros_like(W)).to_dict()
    assert content["kernels"]["classifiers"]["log"]["mean"] is None
    assert content["margins"]["logits"] == [0.0] * 4
