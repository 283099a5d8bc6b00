import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits.narrowing import narrow
from tests.edits.narrowing.planted import close, constant, elsewhere, plant, unread
from tests.edits.networks import (
    Residual,
    convolutional,
    data_for,
    gradient,
    images,
    mlp,
    normal,
    relu_minimum,
    seeded,
)

HOMOGENEOUS = [nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity]
ODD = [nn.Tanh, nn.Hardtanh, nn.Softshrink, nn.Hardshrink, nn.Identity]
OTHERS = [nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Sigmoid, nn.ReLU6]


def brute_force(model, keep, groups):
    """A two-layer perceptron of the neurons kept, that sums the columns of groups."""
    first, act, second = model
    new = nn.Sequential(
        nn.Linear(first.in_features, len(keep)), act, nn.Linear(len(keep), 3)
    ).double()
    with torch.no_grad():
        new[0].weight.copy_(first.weight[keep])
        new[0].bias.copy_(first.bias[keep])
        for i, group in enumerate(groups):
            new[2].weight[:, i] = sum(c * second.weight[:, k] for k, c in group)
        new[2].bias.copy_(second.bias)
    return new


@pytest.mark.parametrize("activation", [*HOMOGENEOUS, *ODD, *OTHERS])
def test_copies_are_read_with_the_sum_of_their_weights(activation):
    model = mlp([4, 6, 3], activation)
    plant(model[0], 4, 1)
    plant(model[0], 2, 1)
    edit = narrow(model, "0")
    groups = [[(0, 1)], [(1, 1), (2, 1), (4, 1)], [(3, 1)], [(5, 1)]]
    expected = brute_force(model, [0, 1, 3, 5], groups)
    assert edit.proof.groups == ((0,), (1, 2, 4), (3,), (5,))
    x = elsewhere(20, 4)
    torch.testing.assert_close(edit.model(x), expected(x), rtol=1e-13, atol=1e-12)
    assert close(model, edit.model, x)
    assert edit.proof.everywhere
    assert edit.proof.exact


@pytest.mark.parametrize("activation", HOMOGENEOUS)
def test_positive_multiples_merge_where_the_activation_is_homogeneous(activation):
    model = mlp([4, 5, 3], activation)
    plant(model[0], 3, 0, 2.7)
    edit = narrow(model, "0")
    assert edit.proof.groups[0] == (0, 3)
    expected = brute_force(
        model, [0, 1, 2, 4], [[(0, 1), (3, 2.7)], [(1, 1)], [(2, 1)], [(4, 1)]]
    )
    x = elsewhere(20, 4)
    torch.testing.assert_close(edit.model(x), expected(x), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("activation", [*OTHERS, nn.Tanh, nn.Hardtanh])
def test_multiples_stay_where_it_is_not(activation):
    model = mlp([4, 5, 3], activation)
    plant(model[0], 3, 0, 2.7)
    assert narrow(model, "0").proof.width_after == 5


@pytest.mark.parametrize("activation", [*ODD, nn.Sigmoid, nn.Hardsigmoid])
def test_mirror_images_merge_where_the_activation_has_them(activation):
    model = mlp([4, 5, 3], activation)
    plant(model[0], 3, 0, -1.0)
    edit = narrow(model, "0")
    assert edit.proof.groups[0] == (0, 3)
    assert close(model, edit.model, elsewhere(20, 4))


def test_mirror_images_of_the_absolute_value_merge():
    model = mlp([4, 5, 3], lambda: nn.LeakyReLU(-1.0))
    plant(model[0], 3, 0, -2.0)
    edit = narrow(model, "0")
    assert edit.proof.groups[0] == (0, 3)
    assert close(model, edit.model, elsewhere(20, 4))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.ELU])
def test_mirror_images_stay_where_it_has_none(activation):
    model = mlp([4, 5, 3], activation)
    plant(model[0], 3, 0, -1.0)
    assert narrow(model, "0").proof.width_after == 5


def test_a_clamp_between_unequal_ends_has_no_mirror_images():
    model = mlp([4, 5, 3], lambda: nn.Hardtanh(-1.0, 2.0))
    plant(model[0], 3, 0, -1.0)
    assert narrow(model, "0").proof.width_after == 5


def test_slopes_that_differ_keep_neurons_apart():
    model = mlp([4, 5, 3], lambda: nn.PReLU(5))
    plant(model[0], 3, 0, 2.0)
    plant(model[0], 4, 1, 2.0)
    with torch.no_grad():
        model[1].weight[4] = 0.7
    edit = narrow(model, "0")
    assert edit.proof.groups == ((0, 3), (1,), (2,), (4,))
    assert edit.model[1].weight.tolist() == [0.25, 0.25, 0.25, pytest.approx(0.7)]
    assert close(model, edit.model, elsewhere(20, 4))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_what_nothing_reads_goes(activation):
    model = mlp([4, 5, 3], activation)
    unread(model[2], 1)
    edit = narrow(model, "0")
    assert edit.proof.gone == (1,)
    assert edit.proof.kept == (0, 2, 3, 4)
    assert torch.equal(edit.model[2].weight, model[2].weight[:, [0, 2, 3, 4]])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU])
def test_constants_go_into_the_bias(activation):
    model = mlp([4, 5, 3], activation)
    constant(model[0], 1, 0.8)
    constant(model[0], 4, -0.3)
    edit = narrow(model, "0")
    assert edit.proof.gone == (1, 4)
    assert not edit.proof.caveats[1:]
    assert close(model, edit.model, elsewhere(20, 4))


def test_a_bias_is_added_for_constants_and_that_is_said():
    model = mlp([4, 5, 3])
    model[2] = nn.Linear(5, 3, bias=False).double()
    constant(model[0], 1, 0.8)
    edit = narrow(model, "0")
    assert edit.model[2].bias is not None
    assert "was given one" in edit.proof.caveats[0]
    assert close(model, edit.model, elsewhere(20, 4))


def test_copies_that_cancel_go_together():
    model = mlp([4, 5, 3], nn.Tanh)
    plant(model[0], 3, 0)
    with torch.no_grad():
        model[2].weight[:, 3] = -model[2].weight[:, 0] * (1 + 1e-16)
    edit = narrow(model, "0")
    assert edit.proof.kept == (1, 2, 4)
    assert edit.proof.gone == (0, 3)
    assert close(model, edit.model, elsewhere(20, 4))


def test_one_neuron_always_stays():
    model = mlp([4, 3, 3])
    for neuron in range(3):
        unread(model[2], neuron)
    edit = narrow(model, "0")
    assert edit.proof.width_after == 1
    assert close(model, edit.model, elsewhere(20, 4))


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(1, 9), inputs=st.integers(1, 5),
    activation=st.sampled_from([*HOMOGENEOUS, *ODD, *OTHERS]), seed=st.integers(0, 999),
)  # fmt: skip
def test_random_networks_lose_nothing(width, inputs, activation, seed):
    # Flat activations and single inputs have true coincidences: none is drawn here.
    model = mlp([inputs + 1, width, 2], activation, seed)
    edit = narrow(model, "0")
    assert edit.proof.kept == tuple(range(width))
    for name, value in model.state_dict().items():
        assert torch.equal(value, edit.model.state_dict()[name])


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(2, 8), copies=st.integers(1, 5), seed=st.integers(0, 999),
    activation=st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.Identity]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_planted_neurons_of_all_kinds_go(width, copies, seed, activation, dtype):
    model = mlp([4, width + copies + 2, 3], activation, seed).to(dtype)
    factors = {nn.ReLU: 1.9, nn.LeakyReLU: 0.3, nn.Tanh: -1.0, nn.Identity: -3.3}
    for i in range(copies):
        plant(model[0], width + i, i % width, factors.get(activation, 1.0))
    unread(model[2], width + copies)
    constant(model[0], width + copies + 1, 0.4)
    edit = narrow(model, "0")
    assert edit.proof.kept == tuple(range(width))
    x = elsewhere(16, 4).to(dtype)
    assert close(model, edit.model, x, 1e-12 if dtype == torch.float64 else 1e-5)


def channels_planted(model):
    """Plant a copy of channel 0, through other batch normalisation, and a null one."""
    conv, norm = model.conv1, model.bn1
    with torch.no_grad():
        conv.weight[2] = -1.5 * conv.weight[0]
        conv.bias[2] = 0.3
        scale = norm.weight[0] / (norm.running_var[0] + norm.eps).sqrt()
        norm.weight[2] = 2 * scale / -1.5 * (norm.running_var[2] + norm.eps).sqrt()
        base = scale * (conv.bias[0] - norm.running_mean[0]) + norm.bias[0]
        own = 2 * scale / -1.5 * (conv.bias[2] - norm.running_mean[2])
        norm.bias[2] = 2 * base - own
    model.conv2.weight.data[:, 3] = 0
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_channels_are_compared_with_batch_normalisation_folded_in(dtype, mode):
    model = channels_planted(convolutional(padding_mode=mode)).to(dtype)
    edit = narrow(model, "conv1", data=[(x.to(dtype), y) for x, y in images()])
    assert edit.proof.kept == (0, 1)
    assert edit.proof.groups[0] == (0, 2)
    x = elsewhere(5, 2, 4, 4).to(dtype)
    assert close(model, edit.model, x, 1e-12 if dtype == torch.float64 else 1e-5)
    assert edit.proof.relative_change < (1e-14 if dtype == torch.float64 else 1e-5)
    assert edit.proof.agreement == 1.0
    assert list(edit.model.state_dict()) == list(model.state_dict())


def test_constants_stay_where_padding_with_zeros_tells_them_from_a_bias():
    model = convolutional()
    model.conv1.weight.data[1] = 0
    model.bn1.bias.data[1] = 3.0
    assert narrow(model, "conv1").proof.width_after == 4
    around = convolutional(padding_mode="circular")
    around.load_state_dict(model.state_dict())
    edit = narrow(around, "conv1")
    assert edit.proof.gone == (1,)
    assert close(around, edit.model, elsewhere(5, 2, 4, 4))


def test_of_constants_that_must_stay_one_does():
    model = convolutional()
    model.conv1.weight.data[1:3] = 0
    model.bn1.weight.data.abs_()
    model.bn1.bias.data[1:3] = torch.tensor([3.0, 5.0])
    edit = narrow(model, "conv1")
    assert edit.proof.groups == ((0,), (1, 2), (3,))
    assert close(model, edit.model, elsewhere(5, 2, 4, 4))


def test_a_constant_of_zero_goes_in_spite_of_padding():
    model = convolutional()
    model.conv1.weight.data[1] = 0
    model.conv1.bias.data[1] = model.bn1.running_mean[1]
    model.bn1.bias.data[1] = -3.0
    edit = narrow(model, "conv1")
    assert edit.proof.gone == (1,)
    assert close(model, edit.model, elsewhere(5, 2, 4, 4))


def test_channels_that_a_linear_layer_reads_by_place():
    model = convolutional()
    model.conv2.weight.data[2] = 0.5 * model.conv2.weight.data[0]
    norm = model.bn2
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name)[2] = getattr(norm, name)[0]
        norm.running_mean[2] *= 0.5
        norm.weight[2] *= 3.0
        norm.bias[2] *= 1.5
    edit = narrow(model, "conv2")
    assert edit.proof.groups == ((0, 2), (1,))
    assert close(model, edit.model, elsewhere(5, 2, 4, 4))


class Pooled(nn.Module):
    """Batch normalisation and pooling after the activation, and two readers."""

    def __init__(self, pool, activation):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.act, self.pool, self.norm = activation, pool, nn.BatchNorm2d(5)
        self.left, self.right = nn.Conv2d(5, 3, 1), nn.Conv2d(5, 3, 2)

    def forward(self, x):
        h = self.pool(self.norm(self.act(self.conv(x))))
        return self.left(h).mean((2, 3)) + self.right(h).mean((2, 3))


def pooled(pool, activation, scales):
    model = seeded(lambda: Pooled(pool, activation))
    with torch.no_grad():
        model.norm.running_mean.copy_(normal(5))
        model.norm.bias.copy_(normal(5, seed=3))
        model.norm.weight.copy_(torch.tensor(scales))
    return model


@pytest.mark.parametrize(
    ("pool", "activation", "factor", "scales", "kept"),
    [
        (nn.MaxPool2d(2), nn.ReLU(), 2.0, [1.0, 1, 1, 1, 3], 4),
        (nn.MaxPool2d(2), nn.ReLU(), 2.0, [1.0, 1, 1, 1, -3], 5),
        (nn.AvgPool2d(2), nn.ReLU(), 2.0, [1.0, 1, 1, 1, -3], 4),
        (nn.MaxPool2d(2), nn.Tanh(), -1.0, [1.0, 1, 1, 1, 3], 5),
        (nn.MaxPool2d(2), nn.Tanh(), 1.0, [1.0, 1, 1, 1, 3], 4),
        (nn.AvgPool2d(2), nn.Tanh(), -1.0, [1.0, 1, 1, 1, 3], 4),
        # Zeros in the average tell a constant from a bias.
        (nn.AvgPool2d(2, padding=1), nn.Tanh(), -1.0, [1.0, 1, 1, 1, 3], 5),
        (nn.ZeroPad2d(1), nn.Tanh(), -1.0, [1.0, 1, 1, 1, 3], 5),
        (nn.ReplicationPad2d(1), nn.Tanh(), -1.0, [1.0, 1, 1, 1, 3], 4),
        (nn.LPPool2d(2, 2), nn.ReLU(), 2.0, [1.0, 1, 1, 1, 3], 5),
        # What is normalised to a constant goes.
        (nn.AvgPool2d(2), nn.Tanh(), 1.0, [1.0, 1, 0, 1, 1], 3),
    ],
)  # fmt: skip
def test_what_stands_before_the_readers_decides(pool, activation, factor, scales, kept):
    model = pooled(pool, activation, scales)
    plant(model.conv, 4, 0, factor)
    edit = narrow(model, "conv")
    assert edit.proof.width_after == kept
    assert close(model, edit.model, elsewhere(4, 2, 8, 8))


class PoolFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(F.relu(self.norm(F.max_pool2d(self.conv(x), 2))))


def test_past_a_pooled_activation_only_equal_channels_merge():
    model = seeded(PoolFirst)
    plant(model.conv, 1, 0)
    plant(model.conv, 3, 2, 2.0)
    edit = narrow(model, "conv")
    assert edit.proof.groups == ((0, 1), (2,), (3,))
    assert close(model, edit.model, elsewhere(4, 2, 8, 8))


@settings(max_examples=10, deadline=None)
@given(width=st.integers(2, 6), factor=st.floats(0.1, 8.0), seed=st.integers(0, 99))
def test_layers_inside_of_residual_blocks(width, factor, seed):
    model = seeded(lambda: Residual(width), seed)
    plant(model.block1.fc1, width - 1, 0, factor)
    edit = narrow(model, "block1.fc1")
    assert edit.proof.width_after == width - 1
    assert close(model, edit.model, elsewhere(9, 4))
    assert type(edit.model) is Residual
    assert list(edit.model.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("width", [5, 4, 3])
def test_a_width_stops_the_reduction(width):
    model = mlp([4, 6, 3])
    plant(model[0], 4, 1)
    plant(model[0], 5, 0, 3.0)
    unread(model[2], 3)
    edit = narrow(model, "0", width=width)
    assert edit.proof.width_after == width
    assert close(model, edit.model, elsewhere(20, 4))


def test_a_width_below_what_is_exact_is_refused():
    model = mlp([4, 6, 3])
    plant(model[0], 4, 1)
    with pytest.raises(EditError, match=r"6 neurons to 5 at the least.*clones"):
        narrow(model, "0", width=4)


def test_criticality_is_kept():
    small, data = relu_minimum()
    wide = mlp([1, 5, 1])
    sources = [(0, 1.0, 1.4), (1, 1.0, 0.3), (0, 2.0, -0.2), (1, 0.5, 1.4)]
    with (
        torch.no_grad()
    ):  # multiples of two neurons, with shares that add up, and a null
        for i, (source, factor, share) in enumerate(sources):
            wide[0].weight[i] = factor * small[0].weight[source]
            wide[0].bias[i] = factor * small[0].bias[source]
            wide[2].weight[:, i] = share * small[2].weight[:, source]
        constant(wide[0], 4, 0.0)
        unread(wide[2], 4)
        wide[2].bias.copy_(small[2].bias)
    edit = narrow(wide, "0", data=data, loss_fn=F.mse_loss)
    assert edit.proof.gradient_before < 1e-10
    assert edit.proof.gradient_after < 1e-10
    independent = float(gradient(edit.model, data, F.mse_loss).norm())
    assert edit.proof.gradient_after == pytest.approx(independent, abs=1e-14)
    for name, value in small.state_dict().items():
        torch.testing.assert_close(edit.model.state_dict()[name], value)


def test_away_from_critical_points_the_gradient_is_that_of_the_narrow_network():
    model = mlp([4, 6, 3])
    plant(model[0], 4, 1)
    data = data_for(4, 3)
    edit = narrow(model, "0", data=data, loss_fn=F.cross_entropy)
    assert edit.proof.gradient_after == pytest.approx(
        float(gradient(edit.model, data).norm()), rel=1e-12
    )
