import pytest
import torch

from layerpeel._checks import FileError
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
    ({}, {"class_names": '["a"]'}, "1 class names"),
    ({}, {"head": None}, "`head` must be"),
    ({"more": torch.ones(1)}, {}, "also has `more`"),
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
