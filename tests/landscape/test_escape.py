from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import NonFiniteError, ShapeError, StateError
from layerpeel.landscape import EscapeStatus, escape
from tests.landscape.networks import normal, tanh_network


@pytest.fixture
def saddle():
    """Two scalar layers, whose risk is the mean of (1 - ab)^2, at zero."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for parameter in model.parameters():
        parameter.data.zero_()
    return model, [(torch.ones(2, 1), torch.ones(2, 1))]


def test_both_signs_and_lengths_lead_down_a_saddle(saddle):
    model, data = saddle
    for length in (1.0, -3.0, 1e-6):
        direction = {n: torch.full((1, 1), length) for n, _ in model.named_parameters()}
        found = escape(model, direction, F.mse_loss, data)
        assert found.status is EscapeStatus.LOWERED
        assert found.slope == 0.0
        # Along the unit direction (1 - t^2 / 2)^2: the bottom is at the root of two.
        assert found.curvature == pytest.approx(-2.0)
        assert 2**0.5 / 2 <= abs(found.step) <= 2
        assert found.measured_drop == pytest.approx(
            1 - (1 - found.step**2 / 2) ** 2, abs=1e-5
        )


def test_a_given_step_is_taken(saddle):
    model, data = saddle
    found = escape(model, torch.tensor([1.0, 1.0]), F.mse_loss, data, step=0.01)
    assert found.step == 0.01
    assert found.predicted_drop == pytest.approx(1e-4)
    assert found.measured_drop == pytest.approx(1e-4, rel=1e-3)
    assert found.model[0].weight.item() == pytest.approx(0.01 / 2**0.5)


def test_a_gradient_is_gone_down_from_either_side():
    model, data = tanh_network()
    x, y = data[0]
    gradients = torch.autograd.grad(F.mse_loss(model(x), y), tuple(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    for sign in (1.0, -1.0):
        direction = {n: sign * g for n, g in zip(names, gradients, strict=True)}
        found = escape(model, direction, F.mse_loss, data)
        assert found.measured_drop > 0
        assert found.step * sign < 0
        assert found.loss_after == F.mse_loss(found.model(x), y).item()


def test_uphill_on_both_sides_the_model_stays():
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.zero_()
    data = [(torch.ones(2, 1), torch.zeros(2, 1))]
    found = escape(model, torch.ones(1), F.mse_loss, data)
    assert found.status is EscapeStatus.NOT_LOWERED
    assert (found.step, found.measured_drop) == (0.0, 0.0)
    assert torch.equal(found.model.weight, model.weight)
    uphill = escape(model, torch.ones(1), F.mse_loss, data, step=1.0)
    assert uphill.status is EscapeStatus.NOT_LOWERED
    assert uphill.measured_drop == -1.0


def test_a_line_without_end_ends():
    model = nn.Linear(1, 1).double()
    found = escape(
        model, torch.ones(2), lambda f, y: -f.mean(), [(torch.ones(2, 1), normal(2, 1))],
        max_doublings=20,
    )  # fmt: skip
    assert found.measured_drop == pytest.approx(found.step * 2**0.5)


def test_the_model_is_a_new_one_in_its_own_dtype(saddle):
    model, data = saddle
    before = deepcopy(model.state_dict())
    model.train()[0].eval()
    found = escape(model, torch.ones(2), F.mse_loss, data)
    assert found.model[0].weight.dtype == torch.float32
    assert [m.training for m in found.model] == [False, True]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("direction", "error", "message"),
    [
        ({"2.weight": torch.ones(1, 1)}, StateError, "'0.weight', '1.weight'"),
        ({"0.weight": torch.ones(1)}, ShapeError, r"\(1, 1\)"),
        (torch.zeros(2), ValueError, "zero everywhere"),
        (torch.tensor([1.0, torch.nan]), NonFiniteError, "finite"),
    ],
)
def test_bad_directions_are_refused(saddle, direction, error, message):
    with pytest.raises(error, match=message):
        escape(saddle[0], direction, F.mse_loss, saddle[1])


@pytest.mark.parametrize("options", [{"step": -1.0}, {"max_doublings": 0}], ids=str)
def test_bad_numbers_are_refused(saddle, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        escape(saddle[0], torch.ones(2), F.mse_loss, saddle[1], **options)


def test_printed_it_says_how_far_down_it_went():
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(3.0)
    data = [(torch.ones(2, 1).double(), torch.zeros(2, 1).double())]
    moved = escape(model, {"weight": -torch.ones(1, 1)}, F.mse_loss, data, step=1.0)
    assert repr(moved).splitlines()[1:] == [
        "risk 9 -> 4 by a step of 1, 5 foreseen of 5",
        "slope -6, curvature 2 at its start",
    ]
