import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits import deepen
from tests.edits.networks import (
    convolutional,
    data_for,
    gradient,
    images,
    mlp,
    outputs,
    relu_minimum,
    risk_of,
    seeded,
)


def stepped(edit, size):
    model = copy.deepcopy(edit.model)
    with torch.no_grad():
        for name, step in edit.direction.items():
            model.get_parameter(name).add_(step, alpha=size)
    return model


def risk(model, data, loss):
    function, point = risk_of(model, data, loss)
    return float(function(point))


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(0.1), nn.ELU(0.5), nn.Hardtanh(), nn.ReLU6()]
)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_slope_at_a_minimum_is_that_of_finite_differences(activation, width):
    model, data = relu_minimum()
    edit = deepen(
        model,
        "0",
        data,
        loss_fn=F.mse_loss,
        at="boundary",
        activation=activation,
        width=width,
    )
    start = risk(edit.model, data, F.mse_loss)
    slopes = [
        (risk(stepped(edit, size), data, F.mse_loss) - start) / size
        for size in (1e-5, 1e-6)
    ]
    # Without the curvature beyond the kink.
    slope = (10 * slopes[1] - slopes[0]) / 9
    assert edit.proof.slope == pytest.approx(slope, rel=1e-3)
    assert width == 1 or edit.proof.slope < -1e-4
    stuck = any("No neuron" in caveat for caveat in edit.proof.caveats)
    assert stuck == (edit.proof.slope >= 0)
    length = torch.cat([s.flatten() for s in edit.direction.values()]).norm()
    assert edit.proof.unit_slope == pytest.approx(edit.proof.slope / float(length))
    assert edit.proof.output_change <= 1e-12
    assert abs(edit.proof.margin) <= 1e-12
    assert edit.proof.inertia_shift is None


def test_moving_the_other_way_changes_nothing():
    model, data = relu_minimum()
    edit = deepen(model, "0", data, loss_fn=F.mse_loss, at="boundary")
    back = outputs(stepped(edit, -1e-3), data)
    torch.testing.assert_close(back, outputs(model, data), rtol=0, atol=1e-12)


def test_descent_leaves_the_boundary_and_not_the_interior():
    model, data = relu_minimum()
    start = risk(model, data, F.mse_loss)
    ends = []
    for at in ("interior", "boundary"):
        edit = deepen(model, "0", data, loss_fn=F.mse_loss, at=at)
        function, point = risk_of(edit.model, data, F.mse_loss)
        sharpest = torch.linalg.eigvalsh(
            torch.autograd.functional.hessian(function, point)
        )[-1]
        for _ in range(1500):
            point = point - 0.2 / sharpest * torch.func.grad(function)(point)
        ends.append(float(function(point)))
    assert ends[0] == pytest.approx(start, abs=1e-12)
    assert ends[1] < start - 1e-5


def test_the_slope_adds_up_over_batches_and_outputs():
    model, data = mlp([3, 5, 4], seed=4), data_for(3, 4, samples=15, batches=4)
    edit = deepen(model, "0", data, loss_fn=F.cross_entropy, at="boundary")
    # At a point that is not critical, what moves along is the smooth part as well.
    below, here = stepped(edit, 1e-7), stepped(edit, -1e-7)
    change = risk(below, data, F.cross_entropy) - risk(here, data, F.cross_entropy)
    assert edit.proof.slope == pytest.approx(change / 1e-7, rel=1e-3)
    assert gradient(model, data).norm() > 1e-3


def one_sided(edit, data, size=1e-7):
    here = risk(edit.model, data, F.cross_entropy)
    return (risk(stepped(edit, size), data, F.cross_entropy) - here) / size


READERS = {
    "zeros": {"padding": 1, "stride": 2},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": 0},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "circular": {"padding": 1, "padding_mode": "circular", "bias": False},
}


# What pads with zeros reads no features that are carried.
CARRIED = ["valid", "reflect", "circular"]


@pytest.mark.parametrize(
    ("geometry", "construction"),
    [(name, "preactivations") for name in READERS]
    + [(name, "features") for name in CARRIED],
)
def test_slopes_of_convolutions_are_those_of_finite_differences(geometry, construction):
    def build():
        return nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 3, **READERS[geometry]),
            nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
        )  # fmt: skip

    model, data = seeded(build, 3), images()
    edit = deepen(
        model,
        "0",
        data,
        loss_fn=F.cross_entropy,
        at="boundary",
        construction=construction,
    )
    assert edit.proof.slope < 0
    assert edit.proof.slope == pytest.approx(one_sided(edit, data), rel=1e-3)
    back = outputs(stepped(edit, -1e-3), data)
    torch.testing.assert_close(back, outputs(model, data), rtol=0, atol=1e-12)
    length = torch.cat([s.flatten() for s in edit.direction.values()]).norm()
    assert edit.proof.unit_slope == pytest.approx(edit.proof.slope / float(length))
    assert abs(edit.proof.margin) <= 1e-12


def test_slopes_in_networks_with_batch_normalisation_are_right():
    model, data = convolutional(2), images()
    for after in ("input", "conv1", "bn2"):
        edit = deepen(model, after, data, loss_fn=F.cross_entropy, at="boundary")
        assert edit.proof.slope == pytest.approx(one_sided(edit, data), rel=1e-3)


@pytest.mark.parametrize(
    "activation",
    [nn.Tanh(), nn.Identity(), nn.ELU(), nn.CELU(0.5), nn.Softplus(), nn.Hardshrink()],
)
def test_activations_without_a_kink_have_no_boundary(activation):
    with pytest.raises(EditError, match="kink"):
        deepen(
            mlp([3, 4, 2]),
            "0",
            data_for(3, 2),
            loss_fn=F.cross_entropy,
            at="boundary",
            activation=activation,
        )


def test_groups_have_none_either():
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten()
        )
    )
    with pytest.raises(EditError, match="interior"):
        deepen(model, "0", images(), loss_fn=F.cross_entropy, at="boundary")
