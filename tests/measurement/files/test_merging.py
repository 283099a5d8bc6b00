import pytest
import torch

from layerpeel._checks import MergeError
from layerpeel.measurement.files import (
    load_measurement,
    merge_measurements,
    save_measurement,
)
from tests.measurement.files.measurements import held_out, measured, thirds, weight

METRICS = ["nc1", "nc1_quotient", "cdnv", "nc3", "energy"]


@pytest.mark.parametrize("light", [False, True])
def test_parts_merge_to_the_measurement_of_all(light, tmp_path):
    whole = measured(light=light)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, part in zip(paths, thirds(light=light), strict=True):
        save_measurement(part, path)
    merged = merge_measurements(*map(load_measurement, paths))
    assert merged.class_counts == whole.class_counts
    assert merged.accuracy == whole.accuracy
    assert merged.loss == pytest.approx(whole.loss, rel=1e-12)
    for name in METRICS:
        if light and name == "nc1":
            continue
        value, expected = getattr(merged, name)(), getattr(whole, name)()
        assert value == pytest.approx(expected, rel=1e-9), name
    assert merged.units.low.equal(whole.units.low)
    torch.testing.assert_close(
        merged.moments.trace, whole.moments.trace, rtol=1e-12, atol=0
    )


def test_nc4_is_against_the_means_of_each_part_and_says_so():
    parts = thirds()
    merged = merge_measurements(*parts)
    agreed = sum(part.nearest_mean.agreed for part in parts)
    assert merged.nearest_mean.agreed.equal(agreed)
    assert merged.nearest_mean.against == "each part"
    assert parts[0].nearest_mean.against == "all data"


def test_one_measurement_is_itself():
    part = measured()
    assert merge_measurements(part) is part


def test_held_out_data_of_one_part_or_of_each():
    first, second, third = thirds()
    with_data = measured(slice(0, None, 3), **held_out())
    count = int(with_data.eval_confusion.class_counts.sum())
    merged = merge_measurements(with_data, second, third)
    assert merged.eval_confusion.counts.equal(with_data.eval_confusion.counts)
    merged = merge_measurements(second, with_data)
    assert merged.eval_confusion.counts.equal(with_data.eval_confusion.counts)
    assert merge_measurements(first, second).eval_confusion is None
    both = merge_measurements(with_data, measured(slice(1, None, 3), **held_out()))
    assert int(both.eval_confusion.class_counts.sum()) == 2 * count


DIFFERENT = [
    ({"weight": weight() + 1e-7}, "the weight of the last layer"),
    ({"bias": None}, "its bias"),
    ({"bias": torch.zeros(4)}, "its bias"),
    ({"class_names": ["a", "b", "c", "d"]}, "the names of the classes"),
    ({"minority": [0]}, "the named minority"),
    ({"light": True}, "light mode"),
    ({"nc4": "skip"}, "whether NC4 was measured"),
]


@pytest.mark.parametrize(("options", "message"), DIFFERENT)
def test_what_differs_is_named(options, message):
    with pytest.raises(MergeError, match=message):
        merge_measurements(measured(), measured(**options))
    with pytest.raises(MergeError, match=message):
        merge_measurements(measured(**options), measured())


def test_all_that_differs_is_named_at_once():
    other = measured(bias=None, class_names=["a", "b", "c", "d"])
    with pytest.raises(MergeError, match=r"its bias, the names of the classes"):
        merge_measurements(measured(), other)
