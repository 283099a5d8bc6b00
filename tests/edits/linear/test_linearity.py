import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import (
    BatchError,
    EditError,
    LayerError,
    NonFiniteError,
    UndefinedWarning,
)
from layerpeel.edits.linear import linearity
from tests.edits.linear.cases import (
    loader,
    nearly_linear_tanh,
    normal_loader,
    pieces_by_hand,
)
from tests.edits.networks import (
    Convolutional,
    Functional,
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    normal,
    seeded,
)


def inputs_of(data):
    return torch.cat([x for x, _ in data])


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid])
def test_correlations_equal_those_of_numpy(activation):
    model, data = mlp([4, 6, 5, 3], activation), normal_loader(4, 3, 60, batches=4)
    found = linearity(model, data)
    for i, path in enumerate(("0", "2")):
        with torch.no_grad():
            before = model[: 2 * i + 1](inputs_of(data))
            after = model[: 2 * i + 2](inputs_of(data))
        moving = [j for j in range(after.shape[1]) if after[:, j].std() > 0]
        rho = [abs(np.corrcoef(before[:, j], after[:, j])[0, 1]) for j in moving]
        assert found[path].correlation[moving].tolist() == pytest.approx(rho, abs=1e-12)
        assert found[path].minimal_correlation == pytest.approx(min(rho), abs=1e-12)
    assert found.samples == 60
    assert found.minimal_correlation().tolist() == [
        row.minimal_correlation for row in found.rows
    ]


KINKED = [
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.Softshrink, nn.Hardshrink, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU),
    lambda: nn.Threshold(0.5, 0.5),
    lambda: nn.LeakyReLU(0.0),
    nn.Identity,
]


@pytest.mark.parametrize("activation", KINKED)
def test_the_piece_test_equals_brute_force(activation):
    generator = torch.Generator().manual_seed(3)
    model = mlp([2, 40, 2], activation)
    with torch.no_grad():
        model[0].weight *= 0.4
        model[0].bias.copy_(8 * torch.rand(40, generator=generator) - 4)
    data = normal_loader(2, samples=12)
    row = linearity(model, data)["0"]
    with torch.no_grad():
        x = model[0](inputs_of(data))
        y = model[1](x)
        wanted = pieces_by_hand(model[1], x)
    assert row.inside.tolist() == wanted
    assert any(wanted)
    assert row.exact == all(wanted)
    # Where a neuron is inside, its line is what it does.
    line = (row.slope * x + row.intercept - y)[:, row.inside].abs()
    assert line.max() < 1e-12
    assert ((row.margin > 0) == row.inside).all()


def test_margins_are_distances_to_the_ends():
    model = mlp([1, 3, 1], nn.Hardtanh)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1], [1.0], [0.1]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.5, 3.0]))
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    row = linearity(model, loader(x))["0"]
    assert row.margin.tolist() == pytest.approx([0.9, -0.5, 1.9])
    assert row.slope.tolist() == pytest.approx([1.0, 0.75, 0.0])
    assert row.least_margin == pytest.approx(-0.5)
    assert not row.exact


def test_slopes_of_a_prelu_are_those_of_its_channels():
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.PReLU(3), nn.Linear(3, 2)))
    with torch.no_grad():
        model[0].bias -= 20
        model[1].weight.copy_(torch.tensor([0.1, 0.2, -0.3]))
    row = linearity(model, normal_loader(2))["0"]
    assert row.slope.tolist() == pytest.approx([0.1, 0.2, -0.3])
    assert row.exact


def by_hand(model, start, data, reader):
    """The relative change of a reader if neurons follow least-squares lines."""
    with torch.no_grad():
        x = model[: start + 1](inputs_of(data))
        y = model[: start + 2](inputs_of(data))
        lines = torch.empty_like(y)
        for j in range(x.shape[1]):
            slope, mean = np.polyfit(x[:, j].numpy(), y[:, j].numpy(), 1)
            lines[:, j] = slope * x[:, j] + mean
        whole = reader(y)
        return float((reader(lines) - whole).norm() / whole.norm())


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.SiLU])
def test_residuals_equal_the_change_of_the_reader(activation):
    model, data = mlp([4, 6, 5, 3], activation, 1), normal_loader(4, 3, 60, batches=4)
    found = linearity(model, data)
    for i, path in enumerate(("0", "2")):
        wanted = by_hand(model, 2 * i, data, model[2 * i + 2])
        assert found[path].residual == pytest.approx(wanted, rel=1e-9)
        assert found[path].residual_by == "exact"


def test_residuals_of_convolutions_and_wide_layers_are_bounds(monkeypatch):
    def build():
        return nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)),
            *(nn.Flatten(), nn.Linear(48, 2)),
        )

    model, data = seeded(build), images(20)
    row = linearity(model, data)["0"]
    with torch.no_grad():
        x, y = model[0](data[0][0]), model[:2](data[0][0])
        lines = row.slope[:, None, None] * x + row.intercept[:, None, None]
        change = model[2](lines) - model[2](y)
        wanted = float(change.norm() / model[2](y).norm())
    assert row.residual_by == "bound"
    assert wanted <= row.residual <= 9 * wanted

    model, data = mlp([4, 6, 3], nn.Tanh), normal_loader(4, 3, 60)
    whole = linearity(model, data)["0"]
    monkeypatch.setattr("layerpeel.edits.linear.looking.MOST_JOINT", 5)
    bound = linearity(model, data)["0"]
    assert (whole.residual_by, bound.residual_by) == ("exact", "bound")
    assert whole.residual <= bound.residual <= 6 * whole.residual


def test_constant_and_idle_neurons_are_told_and_left_out():
    model, data = mlp([3, 6, 2], nn.ReLU), normal_loader(3)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].bias[1] = -50.0
        model[2].weight[:, 2] = 0.0
        model[0].bias[3:] = 50.0
    row = linearity(model, data)["0"]
    assert row.constant.nonzero().flatten().tolist() == [0, 1]
    assert row.idle.nonzero().flatten().tolist() == [0, 2]
    assert row.minimal_correlation == pytest.approx(1.0)
    assert row.exact == bool(model[0].bias[0] != 0)


@pytest.mark.parametrize("samples", [1, 5])
def test_a_correlation_of_constants_is_undefined(samples):
    model = mlp([3, 4, 2], nn.ReLU)
    if samples > 1:
        model[0].weight.data.zero_()
    with pytest.warns(UndefinedWarning, match=r"every neuron is constant.*'0'"):
        found = linearity(model, normal_loader(3, samples=samples, batches=1))
    assert math.isnan(found["0"].minimal_correlation)
    assert found["0"].exact
    assert found.to_dict()["layers"][0]["minimal_correlation"] is None


class Custom(nn.Module):
    def forward(self, x):
        return x * x


@pytest.mark.parametrize(
    ("build", "data", "wanted"),
    [
        (Functional, data_for(4, 3), {"fc1": "", "fc2": "", "fc3": ""}),
        (
            Residual,
            data_for(4, 3),
            {"stem": "also read by", "block1.fc1": "", "block2.fc1": ""},
        ),
        (Convolutional, images(), {"conv1": "not pointwise", "conv2": "flattened"}),
        (
            lambda: nn.Sequential(
                *(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 2, 1)),
                *(nn.Flatten(), nn.Linear(8, 3)),
            ),
            images(),
            {"0": "pooling stands between: '2'", "3": "flattened"},
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
            data_for(4, 3),
            {"0": "no linear layer or convolution reads it, but the output"},
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)),
            data_for(4, 3),
            {"0": ""},
        ),
    ],
)
def test_all_styles_are_looked_at_and_what_is_in_the_way_is_named(build, data, wanted):
    model = convolutional() if build is Convolutional else seeded(build)
    found = linearity(model, data)
    assert list(found) == list(wanted)
    for path, reason in wanted.items():
        row = found[path]
        assert row.mergeable == (reason == "")
        assert reason in row.blocked
        assert len(row.correlation) == len(model.get_submodule(path).weight)


def test_functional_activations_in_place_are_seen_before_they_act():
    model, data = seeded(Functional), data_for(4, 3)
    with torch.no_grad():
        before = model.fc1(inputs_of(data))
    row = linearity(model, data)["fc1"]
    rho = [abs(np.corrcoef(x, x.relu())[0, 1]) for x in before.T if (x > 0).any()]
    assert row.minimal_correlation == pytest.approx(min(rho))
    share = (before > 0).double().mean(0)
    bits = torch.special.entr(share) + torch.special.entr(1 - share)
    assert row.entropy == pytest.approx(float(bits.mean()) / math.log(2))


def test_batch_normalisation_is_part_of_the_pre_activation():
    model, data = convolutional(), images(20)
    with torch.no_grad():
        x = model.bn1(model.conv1(data[0][0])).movedim(1, -1).flatten(0, -2)
    row = linearity(model, data)["conv1"]
    rho = [abs(np.corrcoef(v, v.relu())[0, 1]) for v in x.T]
    assert row.correlation.tolist() == pytest.approx(rho)


def test_rows_are_tabulated_saved_and_drawn():
    found = linearity(nearly_linear_tanh(), normal_loader(3))
    assert "Linearity(5 layers, 40 samples" in repr(found)
    assert found.summary().splitlines()[1].split()[:3] == ["0", "Tanh", "1.0000"]
    assert json.loads(json.dumps(found.to_dict()))["layers"][0]["path"] == "0"
    frame = found.to_frame()
    assert frame.loc["2", "mergeable"]
    assert list(frame.index) == list(found) == ["0", "2", "4", "6", "8"]
    fig, ax = found.plot()
    assert ax.figure is fig
    assert ax.get_ylabel() == "|correlation|"
    assert found.plot(ax)[1] is ax
    with pytest.raises(KeyError, match="no layer at 'O'"):
        found["O"]


def test_layers_are_named_by_themselves_or_by_their_activation():
    model, data = mlp([3, 4, 4, 2]), normal_loader(3)
    assert linearity(model, data, layers=["2"]).paths == ("2",)
    assert linearity(model, data, layers=["3", "0"]).paths == ("0", "2")
    assert linearity(seeded(Residual), data_for(4, 3), layers=["stem"]).paths == (
        "stem",
    )


def test_the_model_stays_as_it_is():
    model, data = mlp([3, 4, 2]).train(), normal_loader(3)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    linearity(model, data)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert list(dict(model.named_modules())) == ["", "0", "1", "2"]


@pytest.mark.parametrize(
    ("model", "data", "layers", "error", "says"),
    [
        (mlp([3, 4, 2]), normal_loader(3), ["O"], LayerError, "none at 'O'"),
        (mlp([3, 4, 2]), normal_loader(3), ["2"], LayerError, "Those are: '0'"),
        (mlp([3, 4, 2]), normal_loader(3), "0", ValueError, "list of paths"),
        (convolutional().train(), images(), None, EditError, "eval mode"),
        (mlp([3, 4, 2]), [], None, BatchError, "at least one sample"),
        (mlp([3, 4, 2]), normal_loader(4), None, BatchError, "must run on the batches"),
        (
            seeded(lambda: nn.Sequential(nn.Linear(3, 4), Custom(), nn.Linear(4, 2))),
            normal_loader(3),
            ["0"],
            LayerError,
            "read by",
        ),
    ],
)
def test_bad_input_is_named(model, data, layers, error, says):
    with pytest.raises(error, match=says):
        linearity(model, data, layers=layers)


def test_what_is_not_finite_is_named():
    model, data = mlp([3, 4, 2]), normal_loader(3)
    broken = mlp([3, 4, 2])
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        linearity(broken, data)
    x = data[0][0].clone()
    x[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="inputs must be finite"):
        linearity(model, [(x, data[0][1])])
    with torch.no_grad():
        model[0].weight.fill_(1e308)
    with pytest.raises(NonFiniteError, match="those at '0'"):
        linearity(model, [(x.nan_to_num(9.0).abs() * 9, data[0][1])])


def trained(normalised, steps, width=20, seed=0):
    """Train a tanh network with two hidden layers on a sine, by full-batch descent.

    Of 40 points; all weights start at a tenth of normal numbers, the scales of
    normalisation at one, and the step is 0.05.
    """
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    y = torch.sin(6 * x)
    norm = nn.BatchNorm1d if normalised else nn.Identity
    model = nn.Sequential(
        *(nn.Linear(1, width), norm(width), nn.Tanh()),
        *(nn.Linear(width, width), norm(width), nn.Tanh()),
        nn.Linear(width, 1),
    ).double()
    for i, module in enumerate(model):
        if isinstance(module, nn.Linear):
            for j, p in enumerate(module.parameters()):
                p.data.copy_(0.1 * normal(*p.shape, seed=100 * seed + 2 * i + j))
        elif isinstance(module, nn.BatchNorm1d):
            # Running statistics are those of the last look, at the whole batch.
            module.momentum = 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        model(x)
        risk = float(F.mse_loss(model.eval()(x), y))
    line = torch.cat([x, torch.ones_like(x)], 1)
    straight = float(F.mse_loss(line @ torch.linalg.lstsq(line, y).solution, y))
    return risk / straight, linearity(model, [(x, y)]).minimal_correlation()


def test_a_network_on_a_plateau_is_linear_and_a_normalised_one_leaves_it():
    risk, correlations = trained(normalised=False, steps=700)
    # Stuck where the best straight line is, as all of its layers are nearly linear.
    assert risk == pytest.approx(1.0, rel=0.05)
    assert correlations.min() > 0.999
    risk, normed = trained(normalised=True, steps=700)
    assert risk < 0.5
    assert normed.max() < 0.99
    assert (normed < correlations).all()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(20, 2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)).flatten(1))


def test_tokens_are_read_place_by_place():
    model = Tokens().double()
    with torch.no_grad():
        model.second.weight.view(2, 5, 4)[:, :, 2] = 0
    found = linearity(model, [(normal(6, 5, 3), torch.arange(6))])
    assert found["first"].idle.tolist() == [False, False, True, False]


def test_padding_that_is_uneven_is_looked_at():
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.Tanh()),
        nn.Conv2d(2, 1, 2, padding="same", padding_mode="circular"),
    ).double()
    row = linearity(model, [(normal(3, 1, 4, 4), torch.arange(3))])["0"]
    assert row.residual_by == "bound"
    assert "pads one side more" in row.blocked


def test_large_features_in_double_precision_are_finite():
    model = mlp([3, 4, 2])
    with torch.no_grad():
        model[0].weight *= 1e40
    found = linearity(model, [(normal(9, 3), torch.arange(9))])
    assert math.isfinite(found["0"].residual)


def test_layers_whose_activation_is_none_that_acts_on_entries_are_named():
    model = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)
    ).double()
    (said,) = linearity(model, [(torch.eye(3).double(), torch.arange(3) % 2)]).left_out
    assert "'0': no known activation follows; it is read by '1' (LayerNorm)" in said
