import pytest
import torch
from torch import nn

from layerpeel._checks import DeviceError
from layerpeel.measurement import measure
from layerpeel.measurement.sources.batches import unpack
from layerpeel.measurement.sources.device import check_batch, check_device, model_device

CPU, META = nn.Linear(2, 3), nn.Linear(2, 3, device="meta")
BATCH = unpack((torch.zeros(2, 2), [0, 1]))


def test_model_device_is_that_of_its_first_tensor():
    assert model_device(CPU) == torch.device("cpu")
    assert model_device(META) == torch.device("meta")
    assert model_device(nn.BatchNorm1d(2, affine=False, device="meta")).type == "meta"
    assert model_device(nn.Identity()) is None


def test_names_of_no_device_are_refused():
    with pytest.raises(DeviceError, match=r"such as 'cpu'.*got 'gpu0'"):
        check_device(CPU, "gpu0")


def test_model_elsewhere_is_refused_and_not_moved():
    with pytest.raises(
        DeviceError, match=r"'meta', but the model is on 'cpu'.*`model.to\('meta'\)`"
    ):
        measure(CPU, [(torch.zeros(2, 2), [0, 1])], device="meta")
    assert CPU.weight.device.type == "cpu"


def test_data_elsewhere_are_refused():
    match = (
        r"model is on 'meta', a batch on 'cpu'.*`device='meta'`.*`model.to\('cpu'\)`"
    )
    with pytest.raises(DeviceError, match=match):
        measure(META, [(torch.zeros(2, 2), [0, 1])])


def test_data_elsewhere_are_refused_inside_mappings():
    batch = unpack({"x": [torch.zeros(2, 2, device="meta")], "labels": [0, 1]})
    with pytest.raises(DeviceError, match="a batch on 'meta'"):
        check_batch(CPU, batch)


def test_a_part_of_a_batch_may_be_elsewhere():
    lengths = torch.zeros(2, device="meta")
    check_batch(
        CPU, unpack({"x": torch.zeros(2, 2), "lengths": lengths, "labels": [0, 1]})
    )
    check_batch(CPU, unpack({"text": "no tensor at all", "labels": [0, 1]}))


def test_device_without_index_means_any_of_them():
    assert check_device(CPU, "cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="'cpu:1'"):
        check_device(CPU, torch.device("cpu", 1))


def test_model_without_tensors_is_anywhere():
    assert check_device(nn.Identity(), "meta") == torch.device("meta")
    check_batch(nn.Identity(), BATCH)


def test_device_moves_batches():
    x = torch.zeros(2, 2, device="meta")
    # On the way to the CPU a meta tensor has no data: that it is tried shows the move.
    with pytest.raises(NotImplementedError, match="meta tensor"):
        measure(CPU, [(x, [0, 1])], device="cpu")
