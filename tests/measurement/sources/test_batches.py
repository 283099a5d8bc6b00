from collections import UserDict

import numpy as np
import pytest
import torch

from layerpeel._checks import BatchError, LabelError, ShapeError
from layerpeel.measurement.sources.batches import unpack

X, Y = torch.zeros(3, 2), torch.tensor([0, 2, 1])


@pytest.mark.parametrize(
    "raw",
    [
        (X, Y),
        [X, Y],
        (X, Y.tolist()),
        (X, Y.numpy()),
        (X, Y.to(torch.uint8)),
        (X, Y.to(torch.int32)),
    ],
    ids=["tuple", "list", "label list", "numpy labels", "uint8", "int32"],
)
def test_pairs(raw):
    batch = unpack(raw, 3)
    assert batch.args == (X,)
    assert batch.kwargs == {}
    assert batch.labels.tolist() == [0, 2, 1]
    assert batch.labels.dtype == torch.int64


@pytest.mark.parametrize("key", ["labels", "label"])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_mappings_are_keyword_arguments(key, kind):
    batch = unpack(kind({"input_ids": X, "attention_mask": X + 1, key: Y}), 3)
    assert batch.args == ()
    assert sorted(batch.kwargs) == ["attention_mask", "input_ids"]
    assert batch.labels.tolist() == [0, 2, 1]


def test_mapping_beside_labels_is_keyword_arguments():
    assert unpack(({"pixel_values": X}, Y)).kwargs["pixel_values"] is X


def test_moving_reaches_nested_tensors_and_leaves_labels():
    batch = unpack(({"a": [X, (X, "text")], "b": 3}, Y)).to(torch.device("meta"))
    first, (second, text) = batch.kwargs["a"]
    assert first.device.type == second.device.type == "meta"
    assert (text, batch.kwargs["b"]) == ("text", 3)
    assert batch.labels.device.type == "cpu"


@pytest.mark.parametrize(
    ("raw", "error", "match"),
    [
        (X, BatchError, r"`\(input, label\)`.*got a Tensor\. Wrap the loader"),
        ((X,), BatchError, "got a tuple of 1 items"),
        ([X, Y, Y], BatchError, "got a list of 3 items"),
        ({"x": X, "target": Y}, BatchError, r"'labels' and 'label'; got 'target', 'x'"),
        ({"labels": Y, "label": Y}, BatchError, "one of the keys"),
        ((X, ["cat", "dog", "cat"]), BatchError, "Encode class names as integers"),
        ((X, None), BatchError, "got a NoneType"),
        ((X[0], 1), BatchError, r"single label.*DataLoader"),
        ((X, torch.tensor(1)), BatchError, "single label"),
        ((X, torch.zeros(3)), LabelError, "integers; got torch.float32"),
        ((X, np.zeros(3)), LabelError, "integers; got torch.float64"),
        ((X, torch.zeros(3) > 0), LabelError, "integers; got torch.bool"),
        ((X, torch.eye(3).long()), ShapeError, "argmax"),
        (
            (X, torch.tensor([0, 3, -1])),
            LabelError,
            r"2 of 3 labels lie outside.*-1, 3",
        ),
    ],
)
def test_rejects(raw, error, match):
    with pytest.raises(error, match=match):
        unpack(raw, 3)


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_labels_are_kept_when_the_loader_fills_its_buffer_anew(kind):
    buffer = Y.clone()
    batch = unpack((X, buffer if kind == "tensor" else buffer.numpy()), 3)
    buffer.zero_()
    assert batch.labels.tolist() == [0, 2, 1]
