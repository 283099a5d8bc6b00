import pytest
import torch

from layerpeel._checks import FileError
from layerpeel.measurement import measure
from layerpeel.measurement.files import (
    load_measurement,
    load_statistic,
    save_measurement,
    save_statistic,
)
from layerpeel.measurement.files.container import Container
from tests.measurement.files.measurements import MEASUREMENTS, measured
from tests.measurement.files.values import assert_same_bits

STATISTICS = ("statistics", "nearest_mean", "eval_confusion")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stats.safetensors"


def assert_same(one, other):
    for name in STATISTICS:
        mine, others = getattr(one, name), getattr(other, name)
        assert (mine is None) == (others is None)
        if mine is not None:
            assert_same_bits(mine, others)
    assert one.weight.equal(other.weight)
    assert (one.bias is None) == (other.bias is None)
    assert one.bias is None or one.bias.equal(other.bias)
    for name in ("head", "class_names", "minority"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_comes_back_bit_by_bit(name, path):
    measurement = MEASUREMENTS[name]()
    assert save_measurement(measurement, path) == path
    loaded = load_measurement(path)
    assert_same(loaded, measurement)
    assert loaded.to_dict() == measurement.to_dict()


def test_a_statistic_is_no_measurement_nor_the_other_way_round(path):
    save_statistic(measured().moments, path)
    with pytest.raises(FileError, match="must hold a Measurement; it holds a Class"):
        load_measurement(path)
    save_measurement(measured(), path)
    with pytest.raises(FileError, match="'Measurement' must be a statistic"):
        load_statistic(path)


def edited(path, tensors=None, settings=None):
    """Write the file anew, with a right digest."""
    save_measurement(measured(minority=[1]), path)
    content = Container.read(path)
    Container(
        content.kind,
        {**content.settings, **(settings or {})},
        {**content.tensors, **(tensors or {})},
    ).write(path)


MISFITS = [
    ({"weight": torch.ones(4, 7, dtype=torch.float64)}, {}, "4 classes and 7 features"),
    ({"weight": torch.ones(4, 6)}, {}, "`weight` must be"),
    ({"bias": torch.ones(3, dtype=torch.float64)}, {}, "`bias` must be"),
    ({}, {"class_names": '["a"]'}, "`class_names` must be a list of 4 texts"),
    ({}, {"class_names": "nonsense"}, "`class_names` .* got 'nonsense'"),
    ({}, {"class_names": "[1, 2, 3, 4]"}, "`class_names` must be a list of 4 texts"),
    ({}, {"class_names": '{"a":1,"b":2,"c":3,"d":4}'}, "`class_names` must be"),
    ({}, {"class_names": '"abcd"'}, "`class_names` must be"),
    ({}, {"minority": "nonsense"}, "`minority` must be a list of class indices"),
    ({}, {"minority": "7"}, "`minority` must be a list of class indices"),
    ({}, {"minority": "[true]"}, "`minority` must be a list of class indices"),
    ({}, {"minority": '["1"]'}, "`minority` must be a list of class indices"),
    ({}, {"minority": "[77]"}, r"`minority` must be .*\[0, 4\).*got \[77\]"),
    ({}, {"minority": "[-1]"}, r"`minority` must be .*\[0, 4\).*got \[-1\]"),
    ({}, {"nearest_mean.against": "foo"}, r"`nearest_mean\.against` must be one of"),
    ({}, {"statistics.sample.most": {"x": 1}}, "a plain value"),
    ({}, {"statistics.sample.most": {"float": "x"}}, "a plain value"),
    ({}, {"head": None}, "`head` must be"),
    ({"more": torch.ones(1)}, {}, "A Measurement must .* also has `more`"),
    ({"growing": torch.ones(1)}, {}, "also has `growing`"),
    ({"eval_confusion.counts": torch.ones(4, 4)}, {}, "also has `eval_confusion"),
    ({"statistics.moments.trace": torch.ones(4)}, {}, r"`statistics\.moments\.trace`"),
]


@pytest.mark.parametrize(("tensors", "settings", "message"), MISFITS)
def test_parts_that_do_not_fit_are_refused(tensors, settings, message, path):
    edited(path, tensors, settings)
    with pytest.raises(FileError, match=message) as caught:
        load_measurement(path)
    assert str(path) in str(caught.value)


def test_a_truncated_measurement_is_refused(path):
    save_measurement(measured(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileError, match="damaged"):
        load_measurement(path)


COUNTS = [
    "statistics.moments.count",
    "statistics.confusion.counts",
    "statistics.loss.count",
    "statistics.margins.count",
    "statistics.margins.histogram",
    "statistics.sample.labels",
    "nearest_mean.agreed",
    "nearest_mean.count",
]


@pytest.mark.parametrize("name", COUNTS)
def test_negative_counts_are_refused(name, path):
    save_measurement(measured(), path)
    counts = Container.read(path).tensors[name]
    edited(path, {name: counts - 1000})
    with pytest.raises(FileError, match=rf"`{name}` must hold whole numbers.*got -"):
        load_measurement(path)


@pytest.mark.parametrize("value", [0.5, torch.nan, torch.inf], ids=str)
def test_counts_that_are_not_whole_are_refused(value, path):
    counts = torch.tensor([1, 2, value, 3], dtype=torch.float64)
    edited(path, {"statistics.moments.count": counts})
    with pytest.raises(FileError, match=rf"must hold whole numbers.*got {value}"):
        load_measurement(path)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"profile.paths.1": "1"}, "A Measurement must have all its parts; .* 'kind'"),
        ({"profile.maps": "foo"}, r"`profile\.maps` must be one of"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(setting, match, path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    batch = torch.eye(3), torch.tensor([0, 1, 0])
    save_measurement(measure(model, [batch], layers=["0"]), path)
    content = Container.read(path)
    assert load_measurement(path).profile.paths == ("0",)
    Container(content.kind, {**content.settings, **setting}, content.tensors).write(
        path
    )
    with pytest.raises(FileError, match=match):
        load_measurement(path)
