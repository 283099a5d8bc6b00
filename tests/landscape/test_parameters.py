import pytest
import torch
from torch import nn

from layerpeel._checks import NonFiniteError, ShapeError, StateError
from layerpeel.landscape import Parameters
from layerpeel.landscape.parameters import _check_tensors
from tests.landscape.networks import Residual, normal, seeded


@pytest.fixture
def model():
    return seeded(Residual)


def test_vectors_and_states_are_inverse(model):
    parameters = Parameters.of(model)
    vector = normal(parameters.size)
    state = parameters.unflat(vector)
    assert torch.equal(parameters.flat(state), vector)
    assert torch.equal(parameters.flat(vector), vector)
    for name, values in state.items():
        assert torch.equal(vector[parameters.slices[name]], values.flatten())


def test_written_is_read(model):
    parameters = Parameters.of(model)
    vector = normal(parameters.size).float().double()
    parameters.write(model, vector)
    assert torch.equal(parameters.read(model), vector)
    assert model.stem.weight.dtype == torch.float32
    assert torch.equal(model.again.weight, model.block.weight)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_names_that_are_left_out_do_not_move(model):
    parameters = Parameters.of(model)
    vector = parameters.flat({"head.bias": torch.ones(3)})
    assert vector.sum() == 3
    assert vector[parameters.slices["head.bias"]].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("direction", "error", "message"),
    [
        ({"haed.bias": torch.ones(3)}, StateError, "'haed.bias'.*'head.bias'"),
        ({"head.bias": torch.ones(1, 3)}, ShapeError, r"\(3,\); got \(1, 3\)"),
        (torch.ones(5), ShapeError, r"got \(5,\)"),
        ({"head.bias": torch.full((3,), torch.inf)}, NonFiniteError, "finite"),
    ],
)
def test_other_directions_are_refused(model, direction, error, message):
    with pytest.raises(error, match=message):
        Parameters.of(model).flat(direction)


def test_a_parametrised_weight_is_its_original():
    model = nn.utils.parametrizations.weight_norm(seeded(lambda: nn.Linear(2, 2)))
    names = Parameters.of(model).names
    assert "parametrizations.weight.original0" in names
    assert "weight" not in names


@pytest.mark.parametrize("direction", [None, "weight", {"weight": [[1.0, 2.0]]}, 3])
def test_directions_are_tensors(direction):
    with pytest.raises(ValueError, match="a vector, or tensors by name; got"):
        _check_tensors(direction)
