import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.edits import deepen, lifted_manifold
from tests.edits.networks import (
    Residual,
    convolutional,
    data_for,
    gradient,
    images,
    inertia,
    mlp,
    outputs,
    relu_minimum,
    risk_of,
    seeded,
)

PIECES = [
    *(nn.ReLU(), nn.LeakyReLU(-2.0), nn.Hardtanh(), nn.ReLU6(), nn.ELU()),
    *(nn.Softplus(), nn.Hardshrink(), nn.PReLU(), nn.Hardsigmoid()),
]


def drawn(edit, data, count=2, **options):
    generator = torch.Generator().manual_seed(0)
    return lifted_manifold(edit, data, generator=generator, count=count, **options)


@pytest.mark.parametrize("activation", PIECES, ids=str)
def test_blocks_with_exact_pieces_keep_outputs_all_over_the_set(activation):
    model, data = mlp([3, 4, 2]), data_for(3, 2)
    edit = deepen(model, "0", data, activation=activation, residual=True)
    block = edit.model.get_submodule("0_deeper")
    features = model[:2](data[0][0])
    # No trivial block: what it adds depends on its input.
    added = block(features) - features
    assert added.std(0).max() > 0.05
    for point in (edit, *drawn(edit, data)):
        change = (outputs(point.model, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12
        assert point.proof.margin > 0
    own = sum(p.numel() for p in edit.model.parameters())
    assert edit.proof.manifold_dimension == own - sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("after", [["0"], ["0", "0"], ["0", "0_deeper"]])
def test_blocks_keep_a_minimum_and_add_zeros(after):
    model, data = relu_minimum()
    edit = deepen(model, after, data, loss_fn=F.mse_loss, residual=True)
    for point in (edit, *drawn(edit, data, loss_fn=F.mse_loss)):
        assert gradient(point.model, data, F.mse_loss).norm() <= 1e-12
        assert point.proof.gradient_after <= 1e-12
        assert inertia(point.model, data) == (0, 2 + 6 * len(after), 5)
    assert edit.proof.inertia_shift == (0, 6 * len(after), 0)
    assert points_differ(drawn(edit, data))


def points_differ(points):
    first, second = (
        torch.cat([p.detach().flatten() for p in point.model.parameters()])
        for point in points
    )
    return bool((first - second).norm() > 0.1)


def test_the_set_of_blocks_has_the_dimension_of_the_null_space():
    model, data = mlp([3, 4, 2]), data_for(3, 2)
    edit = deepen(model, "0", data, residual=True)
    base = drawn(edit, data)[0].model
    first, last = base.get_submodule("0_deeper.linear"), base[3]

    def effective(into, bias, out, c):
        return torch.cat([(out @ (into + torch.eye(4))).flatten(), out @ bias + c])

    inputs = (first.weight, first.bias, last.weight, last.bias)
    parts = torch.autograd.functional.jacobian(effective, inputs)
    matrix = torch.cat([part.flatten(1) for part in parts], 1)
    free = matrix.shape[1] - int(torch.linalg.matrix_rank(matrix))
    assert free == edit.proof.manifold_dimension == 20


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.Sigmoid()])
def test_smooth_blocks_err_by_the_cube_and_stay_as_flat(activation):
    model, data = relu_minimum()
    changes, residuals, sharpest = [], [], []
    for radius in (1e-2, 1e-3):
        edit = deepen(
            model, "0", data, loss_fn=F.mse_loss, residual=True,
            activation=activation, segment_radius=radius,
        )  # fmt: skip
        changes.append(edit.proof.output_change)
        residuals.append(edit.proof.gradient_after)
        risk, point = risk_of(edit.model, data, F.mse_loss)
        hessian = torch.autograd.functional.hessian(risk, point)
        sharpest.append(float(torch.linalg.eigvalsh(hessian)[-1]))
    assert changes[0] / changes[1] == pytest.approx(1000, rel=0.3)
    assert residuals[0] / residuals[1] > 70
    assert sharpest[1] == pytest.approx(sharpest[0], rel=0.2)
    assert any("cube" in caveat for caveat in edit.proof.caveats)
    assert edit.proof.inertia_shift is None


STYLES = [
    (mlp([4, 5, 3]), ["0"], data_for(4, 3)),
    (seeded(Residual), ["stem"], data_for(4, 3)),
    (seeded(Residual), ["block1", "block2.fc1"], data_for(4, 3)),
    (convolutional(padding_mode="reflect"), ["conv1"], images()),
    (convolutional(), ["conv2"], images()),
]


@pytest.mark.parametrize(("model", "after", "loader"), STYLES)
def test_blocks_of_all_styles_train_save_and_load(model, after, loader, tmp_path):
    edit = deepen(model, after, loader, residual=True)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net = copy.deepcopy(model).to(dtype)
        data = [(x.to(dtype), y) for x, y in loader]
        own = deepen(net, after, data, residual=True).model
        change = (outputs(own, data) - outputs(net, data)).abs().max()
        assert change <= allowed
    assert any(".linear.weight" in name for name in edit.model.state_dict())
    torch.save(edit.model.state_dict(), tmp_path / "weights.pt")
    other = deepen(model, after, loader, residual=True).model
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(outputs(other, loader), outputs(edit.model, loader))
    loss = F.cross_entropy(edit.model(loader[0][0]), loader[0][1])
    loss.backward()
    assert all(p.grad is not None for p in edit.model.parameters())
