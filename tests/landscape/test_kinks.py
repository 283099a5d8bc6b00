import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.landscape import Kinks, Risk, kinks
from tests.landscape.networks import Attention, classification, seeded


class Functional(nn.Module):
    """A unit with a weight of one, and any function after it."""

    def __init__(self, function):
        super().__init__()
        self.unit, self.function = nn.Linear(1, 1, bias=False), function
        self.unit.weight.data.fill_(1.0)

    def forward(self, x):
        return self.function(self.unit(x))


def of(model, *values):
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    return kinks(Risk.of(model, F.mse_loss, [(x, torch.zeros_like(x))]))


# Each with pre-activations, the distance of the nearest kink among them, and its name.
CASES = {
    "functional relu": (F.relu, (-2.0, 0.5), 0.5, "relu"),
    "torch relu": (torch.relu, (-0.25, 0.5), 0.25, "relu"),
    "method": (lambda x: x.relu(), (-0.25, 0.5), 0.25, "relu"),
    "in place": (lambda x: (x * 1).relu_(), (-0.25, 0.5), 0.25, "relu"),
    "module": (nn.ReLU(), (-0.25, 0.5), 0.25, "relu"),
    "leaky": (nn.LeakyReLU(), (-0.25, 0.5), 0.25, "leaky_relu"),
    "prelu": (nn.PReLU(), (-0.25, 0.5), 0.25, "prelu"),
    "elu": (nn.ELU(), (-0.25, 0.5), 0.25, "elu"),
    "relu6": (F.relu6, (5.5, 2.0), 0.5, "relu6"),
    "relu6 module": (nn.ReLU6(), (5.5, 2.0), 0.5, "hardtanh"),
    "hardtanh": (nn.Hardtanh(-1, 2), (1.5, 0.0), 0.5, "hardtanh"),
    "clamp": (lambda x: x.clamp(max=2), (1.5, -9.0), 0.5, "clamp"),
    "clamp_min": (lambda x: x.clamp_min(3), (1.5, -9.0), 1.5, "clamp_min"),
    "hardswish": (nn.Hardswish(), (-2.5, 1.0), 0.5, "hardswish"),
    "softshrink": (nn.Softshrink(1.0), (-1.5, 4.0), 0.5, "softshrink"),
    "threshold": (nn.Threshold(1.0, 0.0), (1.5, 4.0), 0.5, "threshold"),
    "abs": (torch.abs, (-1.5, 4.0), 1.5, "abs"),
    "maximum": (lambda x: torch.maximum(x, 2 * x - 1), (0.5, 4.0), 0.5, "maximum"),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_margins_are_distances_to_the_nearest_kink(case):
    function, values, margin, name = CASES[case]
    found = of(Functional(function), *values)
    assert found.margin == margin
    assert f"({name})" in found.where
    assert (found.touching, found.of) == (0, 2)
    assert not found.are_touched
    assert found.caution == ""


@pytest.mark.parametrize("case", ["functional relu", "hardtanh", "maximum"])
def test_kinks_that_are_touched_are_counted(case):
    function, *_ = CASES[case]
    places = {"functional relu": 0.0, "hardtanh": 2.0, "maximum": 1.0}
    found = of(Functional(function), places[case], places[case] + 1e-17, 7.0)
    assert (found.touching, found.of) == (2, 3)
    assert found.caution.startswith("2 of 3 pre-activations are on a kink")


@pytest.mark.parametrize(
    "function", [torch.tanh, F.gelu, F.silu, torch.sigmoid, F.softplus, F.mish]
)
def test_smooth_functions_have_none(function):
    assert of(Functional(function), -1.0, 0.0) == Kinks.empty()
    assert Kinks.empty().margin == math.inf


def test_the_nearest_of_all_layers_and_batches_is_named():
    model = nn.Sequential(Functional(nn.ReLU()), nn.ReLU6(), nn.Hardtanh(-9, 5.75))
    batches = [(torch.tensor([[v]]), torch.zeros(1, 1)) for v in (1.0, 5.5)]
    found = kinks(Risk.of(model, F.mse_loss, batches))
    assert (found.margin, found.where, found.of) == (0.25, "2 (hardtanh)", 6)


def test_activations_inside_of_fused_layers_are_seen():
    risk = Risk.of(seeded(Attention), F.cross_entropy, classification(Attention))
    found = kinks(risk)
    assert found.where == "encoder.layers.0 (relu)"
    assert found.of == 11 * 5 * 6


def test_hooks_are_removed():
    risk = Risk.of(seeded(Attention), F.cross_entropy, classification(Attention))
    kinks(risk)
    for module in risk.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
