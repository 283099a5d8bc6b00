import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError, LossError
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.width.certificate import (
    direction,
    screen_splits,
    split_matrices,
)
from tests.edits.networks import (
    convolutional,
    data_for,
    gradient,
    images,
    mlp,
    normal,
    outputs,
    polished,
    seeded,
    set_vector,
)
from tests.edits.width.certificate.wider import (
    flat,
    hessian,
    plus,
    regression,
    signs,
    site,
    split,
)

ACTIVATIONS = [nn.Tanh, nn.ReLU, nn.GELU]
ALPHAS = [0.5, -0.7, 1.6]


def agree(certificate, model, wide, data, loss, *, old, new):
    u = flat(wide, direction(certificate, wide, old, new))
    H = hessian(wide, data, loss)
    assert float(u.norm()) == pytest.approx(1, rel=1e-12)
    scale = abs(certificate.curvature) + 1e-3 * float(H.abs().max())
    assert abs(float(u @ H @ u) - certificate.curvature) <= 1e-10 * scale
    torch.testing.assert_close(outputs(wide, data), outputs(model, data))
    assert certificate.rounding <= 1e-9 * scale
    assert signs(H) == plus(signs(hessian(model, data, loss)), certificate.inertia)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("classes", [1, 3])
def test_the_inertia_of_a_split_is_added_at_any_point(activation, alpha, classes):
    model = mlp([2, 3, 2, classes], activation, seed=classes)
    data = regression(2, classes) if classes == 1 else data_for(2, classes)
    loss = F.mse_loss if classes == 1 else F.cross_entropy
    assert gradient(model, data, loss).norm() > 1e-3
    for path, reader, neuron in (("0", "2", 1), ("2", "4", 0)):
        screening = screen_splits(*site(model, path, data), loss, alpha=alpha)
        certificate = screening.certificate(neuron)
        wide = split(model, path, neuron, alpha, [reader])
        assert certificate.alpha == alpha
        new = len(wide.get_submodule(path).weight) - 1
        agree(certificate, model, wide, data, loss, old=neuron, new=new)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_neuron_that_was_split_before_is_split_again(activation):
    model, data = mlp([2, 3, 2], activation), regression(2, 2)
    first = split(model, "0", 2, 0.3, ["2"])
    twice = split(first, "0", 2, 0.5, ["2"])
    screening = screen_splits(*site(model, "0", data), F.mse_loss, alpha=0.5)
    certificate = screening.certificate(2, share=0.7)
    agree(certificate, first, twice, data, F.mse_loss, old=2, new=4)
    # The copy of the first split is split in turn, with a negative part outside [0, 1].
    other = split(model, "0", 2, -0.4, ["2"])
    again = split(other, "0", 3, 0.5, ["2"])
    certificate = screening.certificate(2, share=-0.4)
    agree(certificate, other, again, data, F.mse_loss, old=3, new=4)


class Small(nn.Module):
    """Normalised before and after its activation, pooled, and read twice."""

    def __init__(self, *, written_out=False, bias=True, padding=1, activation=None):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 2, bias=bias)
        self.bn1, self.bn2 = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.act = activation or nn.Tanh()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 2)
        self.conv2 = nn.Conv2d(2, 1, 2, padding=padding)
        self.written_out = written_out

    def forward(self, x):
        h = self.pool(self.bn2(self.act(self.bn1(self.conv1(x)))))
        read = h.view(-1, 8) if self.written_out else h.view(h.size(0), -1)
        return self.fc(read) + self.conv2(h).mean((1, 2, 3))[:, None] ** 2


def small(seed=0, **options):
    model = seeded(lambda: Small(**options), seed)
    for i, norm in enumerate((model.bn1, model.bn2)):
        norm.running_mean.copy_(0.3 * normal(2, seed=i))
        norm.running_var.copy_(normal(2, seed=i).square() + 0.5)
        norm.weight.data = 1 + 0.3 * normal(2, seed=i + 5)
        norm.bias.data = 0.2 * normal(2, seed=i + 9)
    return model


def pictures(samples=5):
    return [(normal(samples, 1, 5, 5, seed=3), torch.arange(samples) % 2)]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_with_normalisation_and_pooling(alpha, bias):
    model, data = small(bias=bias), pictures()
    screening = screen_splits(*site(model, "conv1", data), F.cross_entropy, alpha=alpha)
    certificate = screening.certificate(1)
    wide = split(model, "conv1", 1, alpha, ["fc", "conv2"], ["bn1", "bn2"])
    agree(certificate, model, wide, data, F.cross_entropy, old=1, new=2)
    names = {"conv1.weight", "bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"}
    assert set(certificate.moves) == names | ({"conv1.bias"} if bias else set())
    assert certificate.moves["conv1.weight"].shape == (1, 1, 2, 2)
    assert certificate.reads["fc.weight"].shape == (2, 4)
    assert certificate.reads["conv2.weight"].shape == (1, 2, 2)


def test_views_with_numbers_of_channels_do_not_matter():
    found = [
        split_matrices(
            *site(small(written_out=written), "conv1", pictures()), F.cross_entropy, 1
        )
        for written in (False, True)
    ]
    torch.testing.assert_close(found[0].B, found[1].B)
    torch.testing.assert_close(found[0].C, found[1].C)
    assert found[0].moves == found[1].moves


def test_layers_that_are_deeper_inside_and_strided():
    model, data = convolutional(), images()
    for path, neuron in (("conv1", 3), ("conv2", 0)):
        found = split_matrices(*site(model, path, data), F.cross_entropy, neuron)
        reader = "conv2" if path == "conv1" else "fc"
        a = model.get_submodule(reader).weight.detach()
        block = a.shape[1] // len(model.get_submodule(path).weight)
        own = a[:, neuron * block : (neuron + 1) * block].flatten()
        risk = F.cross_entropy(model(data[0][0]), data[0][1])
        norm = path.replace("conv", "bn")
        for name in (f"{path}.weight", f"{norm}.weight", f"{norm}.bias"):
            slope = torch.autograd.grad(
                risk, model.get_parameter(name), retain_graph=True
            )[0]
            torch.testing.assert_close(
                found.C[found.moves[name]] @ own, slope[neuron].flatten()
            )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_matrices_are_those_of_the_formulas(reduction):
    model, data = mlp([3, 4, 5, 2], nn.Tanh, seed=2), regression(3, 2, batches=3)
    loss = nn.MSELoss(reduction=reduction)
    found = split_matrices(*site(model, "2", data), loss, 1)
    x, y = (torch.cat([b[i] for b in data]) for i in (0, 1))
    with torch.no_grad():
        f = torch.tanh(model[0](x))
        h = torch.tanh(model[2](f)[:, 1])
        e = 2 * (model(x) - y) / (y.numel() if reduction == "mean" else 1)
        a = model[4].weight[:, 1]
    f = torch.cat([f, torch.ones(len(f), 1, dtype=f.dtype)], 1)
    first, second = 1 - h**2, -2 * h * (1 - h**2)
    B = sum((a @ e[i]) * second[i] * torch.outer(f[i], f[i]) for i in range(len(x)))
    C = sum(first[i] * torch.outer(f[i], e[i]) for i in range(len(x)))
    torch.testing.assert_close(found.B, B, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.C, C, rtol=1e-12, atol=1e-14)
    risk = loss(model(x), y)
    slopes = torch.autograd.grad(risk, [model[2].weight, model[2].bias])
    whole = torch.cat([slopes[0][1], slopes[1][1:2]])
    torch.testing.assert_close(found.C @ a, whole, rtol=1e-11, atol=1e-13)
    assert found.moves == {"2.weight": slice(0, 4), "2.bias": slice(4, 5)}
    assert found.reads == {"4.weight": slice(0, 2)}


def minimum():
    """A 1-2-1 tanh network at a minimum, with a neuron whose matrix is indefinite."""
    x = torch.linspace(-2, 2, 16, dtype=torch.float64)[:, None]
    model = mlp([1, 2, 1], nn.Tanh)
    values = [1.5, 1.0, -1.5, 1.0, 1.0, 1.0, 0.0]
    set_vector(model, torch.tensor(values, dtype=torch.float64))
    data = [(x, outputs(model, [(x, x)]) + 0.1 * normal(16, 1, seed=1))]
    polished(model, data, steps=20)
    assert gradient(model, data, F.mse_loss).norm() <= 1e-12
    assert signs(hessian(model, data, F.mse_loss)) == (0, 0, 7)
    found = split_matrices(*site(model, "0", data), F.mse_loss, 0)
    assert signs(found.B) == (1, 0, 1)
    return model, data


def test_splitting_a_minimum_of_a_tanh_network_makes_a_strict_saddle():
    model, data = minimum()
    screening = screen_splits(*site(model, "0", data), F.mse_loss)
    for alpha in ALPHAS:
        wide = split(model, "0", 0, alpha, ["2"])
        assert gradient(wide, data, F.mse_loss).norm() < 1e-11
        assert signs(hessian(wide, data, F.mse_loss)) == (1, 1, 8)
    certificate = screening.certificate(0)
    assert certificate.inertia == (1, 1, 1)
    assert certificate.is_negative
    assert certificate.gradient < 1e-12
    wide = split(model, "0", 0, certificate.alpha, ["2"])
    agree(certificate, model, wide, data, F.mse_loss, old=0, new=2)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_without_residuals_nothing_is_claimed(activation):
    model, data = mlp([2, 3, 2], activation), regression(2, 2)
    # Batches of another size: their outputs differ by rounding, and so do residuals.
    x = torch.cat([x for x, _ in data])
    with torch.no_grad():
        targets = torch.cat([model(row[None]) for row in x])
    data = [(x, targets)]
    screening = screen_splits(*site(model, "0", data), F.mse_loss)
    for neuron in range(3):
        certificate = screening.certificate(neuron)
        assert abs(certificate.curvature) < 1e-14
        assert not certificate.is_negative
        assert certificate.inertia == (0, 5, 0)


def test_frozen_parameters_do_not_move():
    model, data = mlp([2, 3, 2], nn.Tanh), regression(2, 2)
    model[0].bias.requires_grad_(False)
    certificate = screen_splits(*site(model, "0", data), F.mse_loss).certificate(1)
    assert set(certificate.moves) == {"0.weight"}
    assert sum(certificate.inertia) == 4
    model[2].weight.requires_grad_(False)
    with pytest.raises(EditError, match="frozen"):
        screen_splits(*site(model, "0", data), F.mse_loss)


def test_models_are_left_as_they_are():
    model, data = small().float(), [(x.float(), y) for x, y in pictures()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = Graph(model)
    screening = screen_splits(
        graph, graph.layer("conv1"), Data(data, model), F.cross_entropy
    )
    certificate = screening.certificate(0)
    assert certificate.moves["conv1.weight"].dtype == torch.float64
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in graph.model.modules())


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc2(torch.flatten(torch.tanh(self.fc1(x)), 1))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = torch.tanh(self.fc1(x))
        return self.fc2(h + x)


def test_what_cannot_be_split_is_named():
    data = regression(3, 2)
    with pytest.raises(EditError, match="add"):
        split_matrices(*site(seeded(Skip), "fc1", data), F.mse_loss, 0)
    sequence = site(seeded(Sequence), "fc1", [(normal(4, 2, 3), normal(4, 2))])
    with pytest.raises(EditError, match="next to each other"):
        split_matrices(*sequence, F.mse_loss, 0)
    grouped = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    )
    with pytest.raises(EditError, match="groups"):
        split_matrices(*site(grouped, "0", images()), F.mse_loss, 0)
    model = mlp([3, 4, 2])
    with pytest.raises(EditError, match="the output of the model"):
        split_matrices(*site(model, "2", data), F.mse_loss, 0)
    with pytest.raises(EditError, match="neither"):
        split_matrices(*site(model, "1", data), F.mse_loss, 0)
    with pytest.raises(EditError, match="from 0 to 3"):
        split_matrices(*site(model, "0", data), F.mse_loss, 4)
    with pytest.raises(LossError, match="none"):
        split_matrices(*site(model, "0", data), nn.MSELoss(reduction="none"), 0)
    screening = screen_splits(*site(model, "0", data), F.mse_loss)
    with pytest.raises(ValueError, match="share"):
        screening.certificate(0, share=math.nan)
