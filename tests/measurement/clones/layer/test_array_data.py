import numpy as np
import pytest
import torch

from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    NonFiniteError,
    ShapeError,
)
from layerpeel.measurement.clones.layer.array_data import array_data
from tests.measurement.clones.layers import correlated, normal

WEIGHT, BIAS = normal(3, 9, seed=5), normal(3, seed=6)
LABELS = torch.arange(80) % 3


class OneBuffer:
    """Reads on demand, into the same memory every time; counts rows read at a time."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.buffer, self.most = np.empty_like(values), 0

    def __getitem__(self, rows):
        part = self.values[rows]
        self.most = max(self.most, len(part))
        self.buffer[: len(part)] = part
        return self.buffer[: len(part)]


def read(data):
    parts = list(data.samples())
    return torch.cat([p.features for p in parts]), torch.cat([p.labels for p in parts])


def memory_map(values, path):
    np.save(path / "h.npy", values)
    return np.load(path / "h.npy", mmap_mode="r")


KINDS = {
    "numpy": lambda h, path: h,
    "tensor": lambda h, path: torch.from_numpy(h),
    "list": lambda h, path: h.tolist(),
    "memory map": memory_map,
    "one buffer": lambda h, path: OneBuffer(h),
    "foreign bytes": lambda h, path: h.astype(">f8"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_arrays_of_every_kind_give_the_same(kind, tmp_path):
    h = correlated().numpy()
    array = kind(h, tmp_path)
    data = array_data(array, LABELS, weight=WEIGHT, bias=BIAS, batch_size=11)
    for _ in range(2):
        features, labels = read(data)
        assert torch.equal(features, torch.from_numpy(h))
        assert torch.equal(labels, LABELS)
    expected = (torch.from_numpy(h) @ WEIGHT.T + BIAS).argmax(1) != LABELS
    assert data.wrong() == int(expected.sum())
    assert getattr(array, "most", 11) == 11
    assert (data.width, data.count, data.num_classes) == (9, 80, 3)
    assert (data.layer, data.cause, data.classifies) == ("head input", "", True)
    assert torch.equal(data.consumer.weight, WEIGHT)


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [
        (torch.float16, 2.0**-10),
        (torch.bfloat16, 2.0**-7),
        (torch.float32, 2.0**-23),
        (torch.float64, 2.0**-52),
        (torch.int16, 2.0**-52),
    ],
)
def test_features_keep_their_dtype_and_its_eps(dtype, eps):
    data = array_data((correlated() % 5).to(dtype), LABELS, weight=None)
    features, _ = read(data)
    assert data.eps == eps
    assert features.dtype == (torch.float64 if dtype == torch.int16 else dtype)


def test_without_weight_or_labels_there_is_reconstruction_alone():
    h = correlated()
    no_weight = array_data(h, LABELS, weight=None)
    assert (no_weight.consumer, no_weight.num_classes) == (None, 3)
    assert no_weight.cause == "no `weight` was given"
    with pytest.raises(ValueError, match="`features` has no weights"):
        no_weight.wrong()
    no_labels = array_data(h, None, weight=WEIGHT, name="held_out")
    assert (no_labels.labelled, no_labels.decides) == (False, False)
    with pytest.raises(ValueError, match="`held_out` has no labels"):
        no_labels.wrong()
    neither = array_data(h, None, weight=None)
    assert neither.num_classes == 0
    for data in (no_weight, no_labels, neither):
        assert int(data.covariance().count) == 80


def test_a_bias_of_zero_and_weights_of_their_own():
    weight = WEIGHT.clone()
    data = array_data(correlated(), LABELS, weight=weight)
    weight.zero_()
    assert torch.equal(data.consumer.weight, WEIGHT)
    assert torch.equal(data.consumer.bias, torch.zeros(3).double())


def test_one_class_alone_is_allowed():
    data = array_data(correlated(), torch.zeros(80).long(), weight=WEIGHT)
    assert data.num_classes == 3
    assert (
        array_data(correlated(), torch.zeros(80).long(), weight=None).num_classes == 1
    )


def broken(k, value):
    h = correlated()
    h[k, 2] = value
    return h


H = correlated()
BAD = {
    "nan": (dict(features=broken(4, torch.nan)), NonFiniteError, r"1 of 80.*1 \(1\)"),
    "inf": (dict(features=broken(5, torch.inf)), NonFiniteError, r"1 of 80.*2 \(1\)"),
    "labels": (dict(labels=LABELS + 1), LabelError, r"\[0, 3\).*values 3"),
    "fewer": (dict(labels=LABELS[1:]), ShapeError, r"\(80,\).*\(79,\)"),
    "width": (dict(weight=WEIGHT[:, 1:]), ShapeError, r"\(n, 8\).*\(80, 9\)"),
    "axes": (dict(features=H[0]), ShapeError, r"\(n, 9\).*\(9,\)"),
    "no neuron": (dict(features=H[:, :0], weight=None), ShapeError, r"\(80, 0\)"),
    "weight": (dict(weight=WEIGHT[0]), ShapeError, r"\(K, W\).*\(9,\)"),
    "bias": (dict(bias=BIAS[1:]), ShapeError, r"`bias`.*\(3,\).*\(2,\)"),
    "bias alone": (dict(bias=BIAS, weight=None), ValueError, "bias alone"),
    "diverged": (dict(weight=WEIGHT / 0), NonFiniteError, "27 entries"),
    "empty": (
        dict(features=H[:0], labels=LABELS[:0]),
        BatchError,
        "at least one sample",
    ),
    "classes": (dict(num_classes=4), HeadError, "3 classes apart.* is 4"),
    "batch": (dict(batch_size=0), ValueError, "`batch_size`"),
}


@pytest.mark.parametrize(("changed", "kind", "match"), BAD.values(), ids=BAD)
def test_bad_arrays(changed, kind, match):
    given = {"features": H, "labels": LABELS, "weight": WEIGHT} | changed
    with pytest.raises(kind, match=match):
        array_data(given.pop("features"), given.pop("labels"), **given)
