import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits import deepen, lifted_manifold
from tests.edits.networks import (
    convolutional,
    data_for,
    gradient,
    images,
    inertia,
    mlp,
    outputs,
    relu_minimum,
)


def points(edit, data, count=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return lifted_manifold(edit, data, generator=generator, count=count, **options)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.ReLU6])
@pytest.mark.parametrize("width", [2, 4, 7])
def test_all_points_have_the_outputs_of_the_network(activation, width):
    model, data = mlp([3, 4, 2], activation), data_for(3, 2)
    edit = deepen(model, "0", data, width=width)
    before = torch.cat([p.detach().flatten() for p in edit.model.parameters()])
    for point in points(edit, data):
        change = (outputs(point.model, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12
        assert point.proof.margin > 0
        after = torch.cat([p.detach().flatten() for p in point.model.parameters()])
        assert (after - before).norm() > 0.1


def test_all_points_are_critical_with_one_inertia():
    model, data = relu_minimum()
    edit = deepen(model, ["0", "0"], data)
    for point in points(edit, data, loss_fn=F.mse_loss):
        assert gradient(point.model, data, F.mse_loss).norm() <= 1e-11
        assert point.proof.gradient_after <= 1e-11
        assert inertia(point.model, data) == (0, 14, 5)


def test_points_span_the_dimension_of_the_set():
    model, data = relu_minimum()
    edit = deepen(model, "0", data, width=2)
    # Near one point of the set: its tangent space is the null space of the outputs.
    base = points(edit, data, count=1)[0].model
    first, last = base[2], base[4]

    def effective(into, bias, out, c):
        return torch.cat([(out @ into).flatten(), out @ bias + c])

    inputs = (first.weight, first.bias, last.weight, last.bias)
    parts = torch.autograd.functional.jacobian(effective, inputs)
    matrix = torch.cat([part.flatten(1) for part in parts], 1)
    free = matrix.shape[1] - int(torch.linalg.matrix_rank(matrix))
    assert free == edit.proof.manifold_dimension


def test_convolutions_have_points_too():
    model, data = convolutional(), images()
    edit = deepen(model, ["conv1", "conv2"], data)
    for point in points(edit, data):
        change = (outputs(point.model, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12


def test_the_same_seed_gives_the_same_point_and_the_edit_stays():
    model, data = mlp([3, 4, 2]), data_for(3, 2)
    edit = deepen(model, "0", data)
    state = {k: v.clone() for k, v in edit.model.state_dict().items()}
    first, second = (points(edit, data, count=1)[0].model for _ in range(2))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert all(torch.equal(v, state[k]) for k, v in edit.model.state_dict().items())


def test_boundaries_and_counts_below_one_are_refused():
    model, data = relu_minimum()
    edit = deepen(model, "0", data, loss_fn=F.mse_loss, at="boundary")
    with pytest.raises(EditError, match="boundary"):
        points(edit, data)
    with pytest.raises(ValueError, match="count"):
        points(deepen(model, "0", data), data, count=0)
