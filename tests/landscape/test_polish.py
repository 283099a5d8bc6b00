from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.landscape import PolishStatus, Risk, polish
from tests.landscape.networks import normal, relu_network, tanh_network


@pytest.mark.parametrize("build", [tanh_network, relu_network])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_go_down_to_rounding(build, seed):
    model, data = build(seed)
    found = polish(model, F.mse_loss, data)
    assert found.status is PolishStatus.CONVERGED
    assert found.status.success
    assert found.gradient_norm <= 1e-12 < found.initial_gradient_norm
    # Measured by other means, on the model that is handed out.
    x, y = data[0]
    loss = F.mse_loss(found.model(x), y)
    gradients = torch.autograd.grad(loss, tuple(found.model.parameters()))
    assert torch.cat([g.flatten() for g in gradients]).norm() <= 1e-12
    assert found.loss == pytest.approx(loss.item(), abs=1e-15)


def test_the_model_is_a_new_one_in_float64():
    model, data = tanh_network()
    model = model.float().train()
    before = deepcopy(model.state_dict())
    found = polish(model, F.mse_loss, data)
    assert found.status.success
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32
    assert next(found.model.parameters()).dtype == torch.float64
    assert found.model.training
    distance = (
        Risk.of(found.model, F.mse_loss, data).point
        - Risk.of(model, F.mse_loss, data).point
    )
    assert found.moved == pytest.approx(float(distance.norm()))


def test_flat_directions_do_not_move():
    # Twenty variables and three samples: of all solutions it is the nearest.
    model = nn.Linear(20, 1, bias=False).double()
    x, y = normal(3, 20), normal(3, 1, seed=1)
    start = model.weight.detach().clone()
    found = polish(model, F.mse_loss, [(x, y)])
    assert found.status.success
    nearest = start + (torch.linalg.pinv(x) @ (y - x @ start.T)).T
    torch.testing.assert_close(found.model.weight.detach(), nearest)


def test_a_critical_point_stays():
    model, data = tanh_network()
    first = polish(model, F.mse_loss, data)
    again = polish(first.model, F.mse_loss, data)
    assert again.status.success
    assert again.moved <= 1e-12


def test_a_limit_on_steps_is_told():
    model, data = tanh_network()
    found = polish(model, F.mse_loss, data, max_steps=1)
    assert found.status is PolishStatus.MAX_STEPS
    assert found.steps == 1
    assert found.gradient_norm < found.initial_gradient_norm
    none = polish(model, F.mse_loss, data, max_steps=0)
    assert (none.steps, none.moved) == (0, 0.0)


def test_a_gradient_in_the_kernel_of_the_hessian_stalls():
    model = nn.Linear(1, 1).double()
    # A risk without curvature has no critical point to go to.
    found = polish(model, lambda f, y: f.mean(), [(normal(4, 1), normal(4, 1))])
    assert found.status is PolishStatus.STALLED
    assert found.gradient_norm == found.initial_gradient_norm > 0


def test_large_networks_are_refused():
    model, data = tanh_network()
    with pytest.raises(ValueError, match=r"at most 6 .* it has 7"):
        polish(model, F.mse_loss, data, limit=6)
    for options in ({"tolerance": 0.0}, {"max_steps": -1}, {"reduction": "no"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            polish(model, F.mse_loss, data, **options)


def test_a_place_without_a_hessian_stalls():
    model = nn.Linear(1, 1).double()
    for parameter in model.parameters():
        parameter.data.zero_()

    def loss_fn(f, y):
        return (f.abs().pow(1.5) + f).mean()

    found = polish(model, loss_fn, [(normal(4, 1), torch.zeros(4, 1))])
    assert found.status is PolishStatus.STALLED
    assert found.moved == 0.0


@pytest.mark.parametrize("build", [tanh_network, relu_network])
def test_a_point_that_is_polished_costs_few_gradients(build, monkeypatch):
    model, data = build(1)
    counted, gradient = [], Risk.gradient
    monkeypatch.setattr(
        Risk, "gradient", lambda *args: counted.append(1) or gradient(*args)
    )
    first = polish(model, F.mse_loss, data)
    # One for each step, and a few to see that no further one is worth it.
    assert len(counted) <= first.steps + 6
    counted.clear()
    again = polish(first.model, F.mse_loss, data)
    assert len(counted) <= again.steps + 6
    assert again.gradient_norm <= first.gradient_norm
