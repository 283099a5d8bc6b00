import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from layerpeel._checks import FileError, LabelError, ShapeError, SourceError
from layerpeel.cli.sources import load_data, load_features, load_model

MODULE = """
from __future__ import annotations

import os
from collections import OrderedDict
from typing import Optional

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

_private = 1
ready = nn.Linear(4, 3)
threshold = 0.5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x)


def make():
    return nn.Sequential(OrderedDict(hidden=nn.Linear(4, 5), drop=nn.Dropout(),
                                     fc=nn.Linear(5, 3)))


def sized(width):
    return nn.Linear(width, 3)


def broken():
    raise RuntimeError("no such checkpoint")


def number():
    return 3


inputs, labels = torch.arange(20.0).reshape(5, 4), torch.tensor([0, 1, 2, 0, 1])
dataset = TensorDataset(inputs, labels)
loader = DataLoader(dataset, batch_size=2)
batches = [(inputs[:3], labels[:3]), (inputs[3:], labels[3:])]
one_pass = iter(batches)


def make_loader():
    return loader


def make_dataset():
    return dataset


def generate():
    yield from batches


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(inputs, labels))
"""


@pytest.fixture(autouse=True)
def same_path(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture
def user(tmp_path):
    (tmp_path / "model_and_data.py").write_text(MODULE)
    return tmp_path / "model_and_data.py"


# Models


@pytest.mark.parametrize("name", ["make", "Net", "ready"])
def test_models_come_from_functions_classes_and_instances(user, name):
    source = load_model(f"{user}:{name}")
    assert isinstance(source.model, nn.Module)
    assert not any(module.training for module in source.model.modules())
    assert source.class_names is None
    assert source.dtype == torch.float32


NOT_MODELS = [
    ("sized", r"without arguments; its signature is `\(width\)`"),
    ("broken", r"RuntimeError: no such checkpoint \(model_and_data\.py, line \d+\)"),
    ("number", "Module.*got a `int`"),
    ("threshold", "Module.*got a `float`"),
    ("absent", "has no `absent`"),
]


@pytest.mark.parametrize(("name", "message"), NOT_MODELS)
def test_other_things_are_no_models(user, name, message):
    with pytest.raises(SourceError, match=message):
        load_model(f"{user}:{name}")


def test_a_name_of_a_hub_is_not_looked_up():
    with pytest.raises(
        SourceError, match="local Hugging Face folder; there is no folder"
    ):
        load_model("google/vit-base-patch16-224")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_loaded(user, tmp_path, suffix):
    state = load_model(f"{user}:make").model.state_dict()
    wanted = {name: torch.full_like(value, 0.5) for name, value in state.items()}
    path = tmp_path / f"weights{suffix}"
    save_file(wanted, path) if suffix == ".safetensors" else torch.save(wanted, path)
    loaded = load_model(f"{user}:make", str(path)).model.state_dict()
    assert all(loaded[name].equal(wanted[name]) for name in wanted)


def renamed(state):
    return {name.replace("fc", "head"): value for name, value in state.items()}


def wrapped(state):
    return {f"module.{name}": value for name, value in state.items()}


def cut(state):
    return {name: value[:2] for name, value in state.items()}


def partial(state):
    return {"fc.weight": state["fc.weight"]}


def extended(state):
    return state | {"ema": torch.zeros(2)}


MISFITS = [
    (renamed, r"missing: fc\.weight, fc\.bias; unexpected: head\.\w+, head\.\w+\.$"),
    (wrapped, r"begin with `module\.`: save the weights of `wrapper\.module`"),
    (cut, r"model's shapes.*size mismatch for hidden\.weight"),
    (partial, r"missing: hidden\.weight, hidden\.bias, fc\.bias; unexpected: none\.$"),
    (extended, r"missing: none; unexpected: ema\.$"),
]


@pytest.mark.parametrize(("change", "message"), MISFITS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_must_fit(user, tmp_path, change, message, suffix):
    state = change(load_model(f"{user}:make").model.state_dict())
    state = {name: value.clone() for name, value in state.items()}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(SourceError, match=message):
        load_model(f"{user}:make", str(path))


def test_long_lists_of_misfits_are_cut(user, tmp_path):
    save_file(
        {f"layer{i}": torch.zeros(1) for i in range(100)}, tmp_path / "w.safetensors"
    )
    with pytest.raises(SourceError, match=r"unexpected: .*\(92 more\)"):
        load_model(f"{user}:make", str(tmp_path / "w.safetensors"))


TIED = """
from torch import nn

def make():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model
"""


def test_shared_tensors_may_be_saved_once(tmp_path):
    (tmp_path / "tied_layers.py").write_text(TIED)
    reference = f"{tmp_path / 'tied_layers.py'}:make"
    saved = load_model(reference).model
    save_model(saved, str(tmp_path / "w.safetensors"))
    loaded = load_model(reference, str(tmp_path / "w.safetensors")).model
    for name, value in saved.state_dict().items():
        assert loaded.state_dict()[name].equal(value)


def test_pickled_model_is_refused_as_weights(user, tmp_path):
    torch.save(nn.Linear(4, 3), tmp_path / "whole.pt")
    with pytest.raises(FileError, match=r"tensors alone.*safetensors"):
        load_model(f"{user}:ready", str(tmp_path / "whole.pt"))


def test_missing_weights(user, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_model(f"{user}:ready", str(tmp_path / "none.pt"))


def tiny_vit():
    import transformers

    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        id2label={0: "cat", 1: "dog"},
    )
    return transformers.ViTForImageClassification(config)


def test_a_folder_gives_a_model_with_class_names(tmp_path):
    model = tiny_vit()
    model.save_pretrained(tmp_path)
    source = load_model(str(tmp_path))
    assert not source.model.training
    assert source.class_names == ("cat", "dog")
    assert source.model.classifier.weight.equal(model.classifier.weight)


def test_other_weights_can_be_put_into_a_folders_model(tmp_path):
    tiny_vit().save_pretrained(tmp_path)
    other = tiny_vit().state_dict()
    save_file(other, tmp_path / "other.safetensors")
    loaded = load_model(str(tmp_path), str(tmp_path / "other.safetensors")).model
    assert loaded.classifier.weight.equal(other["classifier.weight"])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"config\.json"):
        load_model(str(tmp_path))


# Data


def collected(batches):
    """All inputs and labels of two passes, which must agree."""
    passes = []
    for _ in range(2):
        inputs, labels = zip(*batches, strict=True)
        passes.append((torch.cat(inputs).tolist(), torch.cat(labels).tolist()))
    assert passes[0] == passes[1]
    return passes[0]


EXPECTED = (torch.arange(20.0).reshape(5, 4).tolist(), [0, 1, 2, 0, 1])


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("loader", 3),
        ("make_loader", 3),
        ("batches", 2),
        ("dataset", 2),
        ("make_dataset", 2),
        ("generate", None),
        ("Stream", None),
    ],
)
def test_data_can_be_iterated_again_and_again(user, name, length):
    batches = load_data(f"{user}:{name}", batch_size=4)
    assert collected(batches) == EXPECTED
    assert length is None or len(batches) == length


NOT_DATA = [
    ("one_pass", "more than once; got a list_iterator"),
    ("threshold", "iterable of .* batches.*got a `float`"),
    ("number", "iterable of .* batches.*got a `int`"),
    ("inputs", "iterable of .* batches.*got a `Tensor`"),
    ("__name__", "got a `str`"),
    ("sized", "without arguments"),
    ("broken", "RuntimeError: no such checkpoint"),
]


@pytest.mark.parametrize(("name", "message"), NOT_DATA)
def test_other_things_are_no_data(user, name, message):
    with pytest.raises(SourceError, match=message):
        load_data(f"{user}:{name}", batch_size=4)


def test_paths_that_are_no_data(tmp_path):
    with pytest.raises(SourceError, match=r"ends in \.npz or \.safetensors"):
        load_data(str(tmp_path / "data.csv"), 4)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_data(str(tmp_path / "data.npz"), 4)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_data(str(tmp_path / "data.py:loader"), 4)


def save_arrays(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.tensor(a) for name, a in arrays.items()}, path)
    return str(path)


@pytest.fixture(params=["data.npz", "data.safetensors"])
def array_file(request, tmp_path):
    return tmp_path / request.param


def test_array_files_give_tuples(array_file):
    inputs, labels = np.arange(20.0).reshape(5, 4), np.array([0, 1, 2, 0, 1], "i4")
    path = save_arrays(array_file, inputs=inputs, labels=labels)
    batches = load_data(path, batch_size=2)
    assert len(batches) == 3
    assert collected(batches) == EXPECTED
    first, first_labels = next(iter(batches))
    assert (first.dtype, first_labels.dtype) == (torch.float64, torch.int64)


def test_floating_inputs_take_the_models_dtype_and_others_keep_theirs(array_file):
    labels = np.array([0, 1])
    path = save_arrays(array_file, inputs=np.array([[0.1], [0.2]]), labels=labels)
    (inputs, _), *_ = load_data(path, 2, torch.float32)
    assert inputs.equal(torch.tensor([[0.1], [0.2]], dtype=torch.float32))
    path = save_arrays(array_file, input_ids=np.array([[1], [2]]), labels=labels)
    (batch,) = load_data(path, 2, torch.float32)
    assert batch["input_ids"].dtype == torch.int64


def test_hugging_face_names_give_dicts(array_file):
    arrays = {
        "input_ids": np.arange(6).reshape(3, 2),
        "attention_mask": np.ones((3, 2), dtype=np.int64),
        "labels": np.array([1, 0, 1]),
    }
    batches = load_data(save_arrays(array_file, **arrays), batch_size=2)
    for _ in range(2):
        read = list(batches)
        assert len(read) == len(batches) == 2
        for name, array in arrays.items():
            whole = torch.cat([batch[name] for batch in read])
            assert whole.tolist() == array.tolist()
        assert all(set(batch) == set(arrays) for batch in read)


X, Y = np.zeros((3, 2)), np.array([0, 1, 0])
BAD_DATA = [
    ({"inputs": X}, FileError, "must hold `labels`.*lacks `labels`.*holds `inputs`"),
    ({"labels": Y}, FileError, "either `inputs`.*`pixel_values`.*it holds `labels`"),
    ({"x": X, "labels": Y}, FileError, "also holds `x`"),
    ({"inputs": X, "targets": Y}, FileError, "lacks `labels`.*`targets`"),
    ({"inputs": X, "pixel_values": X, "labels": Y}, FileError, "either `inputs`"),
    ({"inputs": X, "labels": Y[:2]}, ShapeError, r"`inputs` must.*2 along.*\(3, 2\)"),
    (
        {"input_ids": Y[:, None], "attention_mask": Y[:2, None], "labels": Y},
        ShapeError,
        "`attention_mask` must",
    ),
    ({"inputs": X, "labels": np.eye(3)[:, :2]}, ShapeError, r"shape \(n,\).*argmax"),
    (
        {"inputs": X, "labels": Y.astype(float)},
        LabelError,
        "integers; got torch.float64",
    ),
    ({"inputs": X, "labels": Y - 1}, LabelError, "from -1 to 0"),
    ({"inputs": X[:0], "labels": Y[:0]}, ValueError, "number of samples"),
]


@pytest.mark.parametrize(("arrays", "error", "message"), BAD_DATA)
def test_bad_data_files_are_refused(array_file, arrays, error, message):
    with pytest.raises(error, match=message):
        load_data(save_arrays(array_file, **arrays), 2)


def test_text_and_objects_are_no_inputs(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, inputs=np.array(["a", "b"]), labels=np.array([0, 1]))
    with pytest.raises(FileError, match=r"`inputs`.*must hold numbers; it holds text"):
        load_data(str(path), 2)
    np.savez(path, inputs=np.array([{}, None]), labels=np.array([0, 1]))
    with pytest.raises(FileError, match=r"`inputs`.*never unpickled"):
        load_data(str(path), 2)


# Features

NEEDED = {"features": X, "labels": Y, "weight": np.ones((2, 2))}
OPTIONAL = {"bias": np.ones(2), "eval_features": X[:2], "eval_labels": Y[:2]}


@pytest.mark.parametrize("arrays", [NEEDED, NEEDED | OPTIONAL], ids=["least", "most"])
def test_features_are_read(array_file, arrays):
    source = load_features(save_arrays(array_file, **arrays))
    for name in [*NEEDED, *OPTIONAL]:
        value = getattr(source, name)
        assert (value is None) == (name not in arrays)
        assert value is None or value.tolist() == arrays[name].tolist()
    assert source.class_names is None


def test_features_come_with_class_names(tmp_path):
    names = np.array(["cat", "dog"])
    path = save_arrays(tmp_path / "f.npz", **NEEDED, class_names=names)
    assert load_features(path).class_names == ("cat", "dog")


def without(name, **changes):
    return {key: value for key, value in (NEEDED | changes).items() if key != name}


BAD_FEATURES = [
    (without("weight"), "lacks `weight`.*holds `features`, `labels` in all"),
    (without("weight", W=X), "lacks `weight`.*`W`"),
    (NEEDED | {"eval_feature": X}, "also holds `eval_feature`"),
    (NEEDED | {"eval_features": X}, "`eval_features` and `eval_labels` together"),
    (NEEDED | {"eval_labels": Y}, "`eval_features` and `eval_labels` together"),
    (NEEDED | {"class_names": Y}, "`class_names`.*list of strings.*got a `Tensor`"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_FEATURES)
def test_bad_feature_files_are_refused(array_file, arrays, message):
    with pytest.raises(FileError, match=message):
        load_features(save_arrays(array_file, **arrays))


def test_features_must_be_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_features(str(tmp_path / "f.npz"))
    with pytest.raises(FileError, match=r"must end in one of \.npz, \.safetensors"):
        load_features(str(tmp_path / "f.pt"))
