import math

import numpy as np
import pytest
import torch

from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    NonFiniteError,
    ShapeError,
    UndefinedWarning,
)
from layerpeel.measurement import measure_features
from layerpeel.measurement.sources.arrays import as_tensor
from tests.measurement.reference import Reference, assert_agrees
from tests.measurement.test_metrics import blobs

H, Y, W, B = blobs(classes=4, width=6)
EXPECTED = Reference(H, Y, W, H.double() @ W.T + B)


class Lazy:
    """Reads only slices, as HDF5 data sets do."""

    def __init__(self, array):
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, rows):
        part = self.array[rows]
        self.most = max(self.most, len(part))
        return part


KINDS = {
    "tensors": (H, Y, W, B),
    "tensors with gradients": (
        H.clone().requires_grad_(),
        Y,
        W.clone().requires_grad_(),
        B,
    ),
    "arrays": (H.numpy(), Y.numpy(), W.numpy(), B.numpy()),
    "lists": (H.tolist(), Y.tolist(), W.tolist(), B.tolist()),
    "big endian": (H.numpy().astype(">f4"), Y.numpy().astype(">i4"), W, B),
    "float64": (H.double(), Y, W, B),
    "column order": (np.asfortranarray(H.numpy()), Y, W, B),
    "slices only": (Lazy(H.numpy()), Y, W, B),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_array_agrees_with_reference(kind):
    h, y, weight, bias = KINDS[kind]
    m = measure_features(h, y, weight=weight, bias=bias, batch_size=10)
    assert_agrees(m, EXPECTED)
    assert m.head == "arrays"


def test_memory_maps_are_read_and_left_alone(tmp_path):
    np.save(tmp_path / "h.npy", H.numpy())
    features = np.load(tmp_path / "h.npy", mmap_mode="r")
    assert_agrees(
        measure_features(features, Y, weight=W, bias=B, batch_size=16), EXPECTED
    )


def test_only_slices_are_read():
    lazy = Lazy(H.numpy())
    measure_features(lazy, Y, weight=W, batch_size=7)
    assert lazy.most == 7


def test_integers_are_features_too():
    pixels = (H * 10).to(torch.uint8)
    m = measure_features(pixels, Y, weight=W)
    assert_agrees(m, Reference(pixels.double(), Y, W, pixels.double() @ W.T))


def test_low_precision_weights():
    m = measure_features(H, Y, weight=W.bfloat16())
    assert torch.equal(m.weight, W.bfloat16().double())


def test_no_bias_is_none():
    assert measure_features(H, Y, weight=W).bias is None


def test_the_measurement_owns_its_weights():
    weight = W.clone()
    m = measure_features(H, Y, weight=weight)
    weight.zero_()
    assert torch.equal(m.weight, W)


def test_evaluation_arrays():
    m = measure_features(
        H, Y, weight=W, bias=B, eval_features=H[:10], eval_labels=Y[:10]
    )
    decisions = (H[:10].double() @ W.T + B).argmax(1)
    assert m.eval_accuracy == np.mean((decisions == Y[:10]).tolist())


BAD = [
    ({"features": H[0]}, ShapeError, r"shape \(n, 6\)"),
    ({"features": H[:, :4]}, ShapeError, r"got \(62, 4\).*`weight.T`"),
    ({"weight": W.T}, ShapeError, r"shape \(n, 4\).*`weight.T`"),
    ({"weight": W[0]}, ShapeError, r"`weight` must have shape \(K, d\)"),
    ({"bias": B[:2]}, ShapeError, r"`bias` must have shape \(4,\)"),
    ({"labels": Y[:9]}, ShapeError, r"`labels` must have shape \(62,\)"),
    ({"labels": Y.double()}, LabelError, "integers"),
    (
        {"labels": Y + 1},
        LabelError,
        r"\[0, 4\); got values from 1 to 4\. \d+ of 62 labels",
    ),
    ({"features": H[:0], "labels": Y[:0]}, BatchError, "at least one sample"),
    ({"num_classes": 5}, HeadError, "it has 4, and `num_classes` is 5"),
    ({"class_names": ["a"]}, HeadError, "it has 4, and `class_names` has length 1"),
    ({"weight": W[:1], "labels": 0 * Y}, HeadError, "at least 2 outputs"),
    ({"weight": W / 0}, NonFiniteError, "weight must be finite; 24 of its 24"),
    ({"bias": B * torch.nan}, NonFiniteError, "bias must be finite; 4 of its 4"),
    ({"features": H / 0}, NonFiniteError, "62 of 62 samples"),
    ({"eval_features": H}, ValueError, "belong together"),
    ({"eval_features": H, "eval_labels": Y + 9}, LabelError, r"\[0, 4\)"),
    ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
    ({"minority": [4]}, ValueError, r"`minority` must be .* got \[4\]"),
]


@pytest.mark.parametrize(("change", "error", "match"), BAD)
def test_rejects(change, error, match):
    arguments = {"features": H, "labels": Y, "weight": W, **change}
    with pytest.raises(error, match=match):
        measure_features(
            arguments.pop("features"), arguments.pop("labels"), **arguments
        )


def test_arrays_are_not_shared():
    array = np.zeros(3)
    as_tensor(array).add_(1)
    assert array.tolist() == [0, 0, 0]


def light_and_full(**kwargs):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 6
    W = torch.randn(6, 5, generator=g)
    h = W[y] + torch.randn(120, 5, generator=g)
    return [
        measure_features(h, y, weight=W, light=light, **kwargs)
        for light in (True, False)
    ]


def test_light_mode_gives_the_same_numbers_where_it_gives_any():
    light, full = light_and_full(
        eval_features=torch.eye(5), eval_labels=[0, 1, 2, 3, 4]
    )
    assert light.light
    assert not full.light
    for name in ("nc1_quotient", "cdnv", "nc3", "nc4", "energy", "nc2_means"):
        assert getattr(light, name)() == getattr(full, name)(), name
    assert light.nc1_quotient(pooling="class") == full.nc1_quotient(pooling="class")
    for name in ("accuracy", "eval_accuracy", "loss", "majority_accuracy"):
        assert getattr(light, name) == getattr(full, name), name


@pytest.mark.parametrize("pooling", ["pooled", "class"])
def test_light_mode_names_what_it_cannot_give(pooling):
    light, _ = light_and_full()
    with pytest.warns(UndefinedWarning, match="light"):
        assert math.isnan(light.nc1(pooling=pooling))
    assert light.to_dict()["nc1"]["ratio"] is None


def test_without_nc4_there_is_a_warning():
    _, m = light_and_full(nc4="skip")
    assert m.nearest_mean is None
    with pytest.warns(UndefinedWarning, match="not measured"):
        assert math.isnan(m.nc4())
    with pytest.warns(UndefinedWarning, match="second look"):
        assert math.isnan(m.nc1(pooling="class"))
    assert m.to_dict()["nc4"]["agreement"] is None


def test_one_pass_says_what_it_compared_with():
    _, m = light_and_full(nc4="one_pass")
    assert m.nearest_mean.against == "running means"
    # All samples fit into one fold, so that the means so far are those of all.
    assert m.nc4() == light_and_full()[1].nc4()


def test_unknown_ways_to_nc4_are_listed():
    with pytest.raises(ValueError, match="`nc4` must be one of 'second_pass'"):
        light_and_full(nc4="twice")


def test_ten_thousand_classes_take_little_memory():
    K, d = 10_000, 16
    g = torch.Generator().manual_seed(0)
    W = torch.randn(K, d, generator=g)
    y = torch.randperm(K, generator=g)[:500]
    with pytest.warns(UndefinedWarning):
        m = measure_features(W[y], y, weight=W, light=True, nc4="one_pass")
    assert m.num_classes == K
    parts = m.statistics.parts().values()
    # That of the margins' 451 bins a class, and nothing larger.
    assert max(p.numel() for p in parts if isinstance(p, torch.Tensor)) == 451 * K
