import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.landscape import Kinks, Risk, kinks
from layerpeel.landscape.windows import pooled_windows, reduced_windows
from tests.landscape.networks import Attention, classification, normal, seeded


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


@pytest.mark.parametrize(
    ("case", "place"), [("relu6", 6.0), ("hardtanh", 2.0), ("maximum", 1.0)]
)
def test_kinks_that_are_touched_are_counted(case, place):
    found = of(Functional(CASES[case][0]), place, place + 1e-17, 7.0)
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


class Image(nn.Module):
    """A convolution with a weight of one, and any function after it."""

    def __init__(self, function):
        super().__init__()
        self.unit, self.function = nn.Conv2d(1, 1, 1), function
        self.unit.weight.data.fill_(1.0), self.unit.bias.data.fill_(0.0)

    def forward(self, x):
        return self.function(self.unit(x)).flatten(1)


def slope_jump(model, loss_fn, x):
    """How much the slope of the risk jumps here, in the worst of some directions."""
    h, worst = 1e-6, 0.0
    start = [p.detach().clone() for p in model.parameters()]
    for seed in range(6):
        values = []
        for side in (h, -h, 0.0):
            for k, (p, at) in enumerate(zip(model.parameters(), start, strict=True)):
                p.data = at + side * normal(*p.shape, seed=10 * seed + k)
            values.append(loss_fn(model(x)).item())
        worst = max(worst, abs(values[0] + values[1] - 2 * values[2]) / h)
    return worst


def linear(*weights, bias=0.0):
    layer = nn.Linear(len(weights), 1).double()
    layer.weight.data[0] = torch.tensor(weights, dtype=torch.float64)
    layer.bias.data.fill_(bias)
    return layer


def picture(*rows):
    return torch.tensor([[rows]], dtype=torch.float64)


def image(function):
    return Image(function).double()


DISTINCT = picture([1.0, 3.0, 2.0, 5.0], [4.0, 0.5, 7.0, 6.0])
TIED = picture([1.0, 3.0, 3.0, 5.0], [3.0 - 1e-16, 0.5, 7.0, 7.0])
NEGATIVE = picture([-1.0, -3.0, -2.0, 5.0], [-4.0, -0.5, 7.0, 6.0])

# Each with a model, its inputs, and how many decisions are on a kink and move.
PLACES = {
    "relu at zero": (nn.Sequential(linear(1.0), nn.ReLU()), [[0.0], [2.0]], 1),
    "relu of a relu that is off": (
        nn.Sequential(linear(1.0), nn.ReLU(), nn.ReLU()), [[-1.0], [2.0]], 0
    ),
    "relu of a relu at zero": (
        nn.Sequential(linear(1.0), nn.ReLU(), nn.ReLU()), [[0.0], [2.0]], 2
    ),
    "a unit on a bias of zero": (
        nn.Sequential(linear(1.0), nn.ReLU(), linear(1.0), nn.ReLU()), [[-1.0]], 1
    ),
    "clamped data": (
        nn.Sequential(nn.ReLU6(), linear(1.0, 2.0)), [[0.0, 6.0], [1.0, 2.0]], 0
    ),
    "a saturated clamp": (
        nn.Sequential(linear(1.0), nn.ReLU6(), nn.ReLU6()), [[9.0], [2.0]], 0
    ),
    "distinct windows": (image(nn.MaxPool2d(2)), DISTINCT, 0),
    "tied places that move alike": (image(nn.MaxPool2d(2)), TIED, 0),
    "windows of relus that are off": (
        nn.Sequential(image(lambda x: F.max_pool2d(x.relu(), 2))), NEGATIVE, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES, ids=str)
def test_only_kinks_that_move_count_and_there_slopes_jump(case):
    model, x, touching = PLACES[case]
    x = torch.as_tensor(x, dtype=torch.float64)
    with torch.no_grad():
        y = model(x) + 1.0
    found = kinks(Risk.of(model, F.mse_loss, [(x, y)]))
    assert found.touching == touching
    assert found.margin > 0 or touching
    jump = slope_jump(model, lambda f: F.mse_loss(f, y), x)
    assert (jump > 1e-2) == (touching > 0), jump


class Windows(nn.Module):
    """A sum of two patterns with weights of one, and a maximum over places."""

    def __init__(self, function):
        super().__init__()
        self.mix, self.function = nn.Parameter(torch.ones(2).double()), function

    def forward(self, x):
        return self.function((self.mix[:, None, None] * x).sum(1)).flatten(1)


POOLS = {
    "1d": lambda x: F.max_pool1d(x.flatten(1)[:, None], 2),
    "2d": lambda x: F.max_pool2d(x[:, None], 2),
    "module": lambda x: nn.MaxPool2d((2, 4))(x[:, None]),
    "padded, dilated": lambda x: F.max_pool2d(x[:, None], 2, 1, 1, dilation=(1, 2)),
    "ceil": lambda x: F.max_pool2d(x[:, None], (2, 3), ceil_mode=True),
    "indices": lambda x: F.max_pool2d(x[:, None], 2, return_indices=True)[0],
    "adaptive": lambda x: F.adaptive_max_pool2d(x[:, None], (1, 3)),
    "adaptive 1d": lambda x: F.adaptive_max_pool1d(x.flatten(1)[:, None], 3),
    "amax": lambda x: x.amax((1, 2))[:, None],
    "max of all": lambda x: x.max()[None, None],
    "max": lambda x: torch.max(x, dim=2).values,
    "min": lambda x: x.min(dim=1, keepdim=True).values,
}


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_ties_of_maxima_are_kinks_where_slopes_jump(pool, seed):
    # Small integers, so that sums of two patterns tie now and then.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 6, (1, 2, 2, 4), generator=generator).double()
    model = Windows(POOLS[pool])
    with torch.no_grad():
        y = model(x) + 1 + normal(*model(x).shape)
    found = kinks(Risk.of(model, F.mse_loss, [(x, y)], reduction="mean"))
    jump = slope_jump(model, lambda f: F.mse_loss(f, y), x)
    assert found.are_touched == (jump > 1e-3), jump


def test_the_margin_of_a_maximum_is_the_gap_of_the_two_largest():
    found = kinks(
        Risk.of(image(nn.MaxPool2d(2)), F.mse_loss, [(DISTINCT, torch.zeros(1, 2))])
    )
    assert (found.margin, found.where, found.of) == (1.0, "function (max_pool2d)", 2)


def test_windows_are_those_that_torch_pools():
    x = normal(2, 3, 7, 9)
    for options in (
        {"kernel_size": 3}, {"kernel_size": (2, 3), "stride": (3, 2), "padding": 1},
        {"kernel_size": 2, "dilation": 3, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ):  # fmt: skip
        windows = pooled_windows("max_pool2d", x, (), options)
        wanted = F.max_pool2d(x, **options)
        assert torch.equal(windows.amax(1), wanted.flatten())
    for size in (1, (3, 4), (None, 2), 7):
        windows = pooled_windows("adaptive_max_pool2d", x, (size,), {})
        assert torch.equal(windows.amax(1), F.adaptive_max_pool2d(x, size).flatten())
    for dims in (None, 1, (0, 2), -1):
        axes = dims if dims is not None else ()
        assert torch.equal(reduced_windows(x, dims).amax(1), x.amax(axes).flatten())
    assert pooled_windows("fractional_max_pool2d", x, (2,), {}) is None


def test_kinks_of_the_loss_are_seen():
    model, x = linear(1.0), torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    for loss_fn, y, touching in [
        (F.l1_loss, x, 2), (F.l1_loss, x + 1, 0), (F.smooth_l1_loss, x + 1, 2),
        (nn.HuberLoss(delta=2.0), x - 2, 2), (F.mse_loss, x, 0),
        (lambda f, y: (1 - f * y).clamp(min=0).mean(), 1 / x, 2),
    ]:  # fmt: skip
        found = kinks(Risk.of(model, loss_fn, [(x, y)]))
        assert found.touching == touching
        assert not touching or found.where.startswith("the loss (")


def test_a_pass_that_depends_on_its_values_counts_all():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit = linear(1.0)

        def forward(self, x):
            # Off and on a kink for good, as long as the pass is the same.
            out = torch.relu(torch.relu(self.unit(x) * 0) - 0)
            return torch.relu(out) if self.unit.bias.item() == 0.0 else out

    x = torch.ones(2, 1, dtype=torch.float64)
    assert kinks(Risk.of(Branching(), F.mse_loss, [(x, x)])).touching == 6
