import pickle
import warnings

import pytest
import torch

from layerpeel._checks import FileError
from layerpeel._weights import read_weights


def weights():
    return torch.nn.Linear(2, 3).state_dict()


WRAPPED = [
    lambda state: state,
    dict,
    lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    lambda state: {"model": state, "step": torch.tensor(4)},
    lambda state: {"model_state_dict": state, "model": "resnet"},
    lambda state: {**state, "_extra_state": {"version": 1}},
]


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_state_dicts_are_unwrapped(tmp_path, wrap, suffix):
    state = weights()
    torch.save(wrap(state), tmp_path / f"a{suffix}")
    read = read_weights(tmp_path / f"a{suffix}")
    assert set(read) - {"_extra_state"} == {"weight", "bias"}
    assert all(read[name].equal(state[name]) for name in state)


NO_STATE = [
    ({"state_dict": weights(), "model": weights()}, "keys state_dict, model"),
    ({"epoch": 3, "ema": weights()}, "keys epoch, ema"),
    ({}, "dict"),
    ([torch.zeros(2)], "list"),
    (torch.zeros(2), "Tensor"),
]


@pytest.mark.parametrize(("content", "message"), NO_STATE, ids=lambda v: str(v)[:20])
def test_ambiguous_or_absent_state_dicts_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FileError, match=f"one state dict.*{message}.*safetensors"):
        read_weights(tmp_path / "a.pt")


def test_whole_models_are_refused_with_what_to_do(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pt")
    with pytest.raises(FileError, match=r"torch\.nn.*Linear.*model\.state_dict\(\)"):
        read_weights(tmp_path / "a.pt")


def test_plain_pickle_is_refused_in_one_message(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": [1, 2]}))
    with warnings.catch_warnings(record=True) as told, pytest.raises(FileError):
        read_weights(tmp_path / "a.pt")
    assert told == []
