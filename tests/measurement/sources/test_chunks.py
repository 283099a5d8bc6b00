import numpy as np
import pytest
import torch

from layerpeel._checks import BatchError, LabelError, ShapeError
from layerpeel.measurement import measure_features
from layerpeel.measurement.files.digest import digest

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 50)
FEATURES = RNG.normal(size=(50, 4)) + 5 * np.eye(3, 4)[LABELS]
WEIGHT, BIAS = RNG.normal(size=(3, 4)), RNG.normal(size=3)


def pairs(size=7):
    for start in range(0, 50, size):
        yield FEATURES[start : start + size], LABELS[start : start + size]


def whole(**options):
    return measure_features(FEATURES, LABELS, weight=WEIGHT, bias=BIAS, **options)


@pytest.mark.parametrize("kind", ["generator", "list", "tensors"])
def test_chunks_measure_what_one_array_does(kind):
    chunks = {
        "generator": pairs(),
        "list": list(pairs()),
        "tensors": [(torch.tensor(h), torch.tensor(y)) for h, y in pairs()],
    }[kind]
    found = measure_features(chunks, weight=WEIGHT, bias=BIAS)
    assert digest(found.statistics) == digest(whole().statistics)
    assert found.nc4() == whole().nc4()
    assert found.nc1(pooling="class") == pytest.approx(whole().nc1(pooling="class"))


def test_empty_chunks_are_passed_over():
    chunks = [(FEATURES[:0], LABELS[:0]), *pairs()]
    assert measure_features(chunks, weight=WEIGHT).num_samples == 50


def test_a_list_is_read_twice_and_not_kept():
    found = measure_features(list(pairs()), weight=WEIGHT, bias=BIAS, cache_bytes=0)
    assert found.nc4() == whole().nc4()


def test_a_generator_beyond_the_cache_says_what_to_do():
    with pytest.raises(BatchError, match=r"cache_bytes.*one_pass"):
        measure_features(pairs(), weight=WEIGHT, cache_bytes=100)


def test_a_generator_of_any_length_is_measured_in_one_pass():
    found = measure_features(pairs(), weight=WEIGHT, cache_bytes=0, nc4="one_pass")
    assert found.num_samples == 50
    assert found.nearest_mean.against == "running means"


def test_held_out_chunks():
    found = measure_features(pairs(), weight=WEIGHT, bias=BIAS, eval_features=pairs())
    assert found.eval_accuracy == found.accuracy == whole().accuracy


BAD = {
    "no pair": ([FEATURES], BatchError, "pair"),
    "single values": ([(3, 3)], BatchError, r"shape \(m, d\); got the single value 3"),
    "a single label": ([(FEATURES, 3)], ShapeError, r"shape \(n,\)"),
    "three": ([(FEATURES, LABELS, LABELS)], BatchError, "3 items"),
    "nothing": ([], BatchError, "at least one sample"),
    "nothing to iterate": (3, BatchError, "iterable"),
    "an array alone": (FEATURES, BatchError, "pass `labels`"),
    "width": ([(FEATURES[:, :3], LABELS)], ShapeError, "columns"),
    "labels": ([(FEATURES, LABELS + 1)], LabelError, r"\[0, 3\)"),
    "lengths": ([(FEATURES, LABELS[:9])], ShapeError, r"shape \(50,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_chunks(name):
    chunks, error, match = BAD[name]
    with pytest.raises(error, match=match):
        measure_features(chunks, weight=WEIGHT)


@pytest.mark.parametrize("nc4", ["second_pass", "one_pass"])
@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_a_generator_may_fill_one_buffer_over_and_over(kind, nc4):
    features, labels = torch.empty(10, 4, dtype=torch.float64), torch.empty(10).long()

    def reused():
        for start in range(0, 50, 10):
            features.copy_(torch.tensor(FEATURES[start : start + 10]))
            labels.copy_(torch.tensor(LABELS[start : start + 10]))
            yield (
                (features, labels)
                if kind == "tensors"
                else (
                    features.numpy(),
                    labels.numpy(),
                )
            )

    found = measure_features(reused(), weight=WEIGHT, bias=BIAS, nc4=nc4)
    expected = measure_features(pairs(10), weight=WEIGHT, bias=BIAS, nc4=nc4)
    assert found.class_counts == tuple(np.bincount(LABELS))
    assert digest(found.statistics) == digest(expected.statistics)
    assert found.nc4() == expected.nc4()
