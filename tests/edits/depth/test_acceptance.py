"""What every lift must do, on networks that are drawn."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from layerpeel.edits import deepen, lifted_manifold
from tests.edits.networks import data_for, mlp, normal, outputs, seeded

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.ReLU6, nn.Hardtanh]


class Block(nn.Module):
    def __init__(self, width, activation):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.norm, self.act = nn.BatchNorm1d(width), activation()

    def forward(self, x):
        return x + self.fc2(self.act(self.norm(self.fc1(x))))


def perceptron(draw, activation):
    widths = draw(st.lists(st.integers(1, 6), min_size=3, max_size=5))
    layers = [str(2 * i) for i in range(len(widths) - 2)]
    return mlp(widths, activation), (widths[0],), [*layers, "input"]


def residual(draw, activation):
    width, blocks = draw(st.integers(1, 5)), draw(st.integers(1, 2))

    def build():
        parts = [Block(width, activation) for _ in range(blocks)]
        return nn.Sequential(nn.Linear(3, width), *parts, nn.Linear(width, 2))

    return seeded(build), (3,), [str(blocks), "1.fc1", "0"]


def convolutional(draw, activation):
    ins, a, b, groups = (draw(st.integers(1, 3)) for _ in range(4))
    kernel, padding = (
        draw(st.sampled_from([1, 3])),
        draw(st.sampled_from([0, 1, "same"])),
    )
    pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    mode = draw(st.sampled_from(["zeros", "replicate", "circular"]))

    def build():
        # Normalised after the activation, and pooled, before the next layer.
        return nn.Sequential(
            nn.Conv2d(ins, a * groups, 2), nn.BatchNorm2d(a * groups), activation(),
            nn.BatchNorm2d(a * groups), pool(2, stride=1),
            nn.Conv2d(
                a * groups, b * groups, kernel, padding=padding, groups=groups,
                padding_mode=mode, bias=False,
            ),
            nn.BatchNorm2d(b * groups), activation(), pool(2, stride=1, padding=1),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * b * groups, 2),
        )  # fmt: skip

    return seeded(build), (ins, 6, 6), ["0", "5", "6"]


def normalised(model, seed):
    for i, norm in enumerate(model.modules()):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.copy_(0.3 * normal(norm.num_features, seed=seed + i))
            norm.running_var.copy_(normal(norm.num_features, seed=i).square() + 0.5)
    return model


@pytest.mark.parametrize("style", [perceptron, residual, convolutional])
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_outputs_are_preserved_whatever_the_network(style, data):
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    model, shape, places = style(data.draw, activation)
    seed = data.draw(st.integers(0, 2**16))
    normalised(model, seed)
    after = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2))
    x = normal(8, *shape, seed=seed)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net = model.to(dtype)
        loader = [(part.to(dtype), torch.zeros(4).long()) for part in x.chunk(2)]
        edit = deepen(net, after, loader)
        points = [edit]
        if dtype == torch.float64:
            points += lifted_manifold(
                edit, loader, generator=torch.Generator().manual_seed(seed)
            )
        for point in points:
            change = (outputs(point.model, loader) - outputs(net, loader)).abs().max()
            assert change <= allowed
            assert point.proof.margin > 0


@settings(max_examples=15, deadline=None)
@given(
    widths=st.tuples(*3 * [st.integers(1, 5)]),
    samples=st.integers(2, 12),
    seed=st.integers(0, 2**16),
    residual=st.booleans(),
)
def test_more_data_never_enlarge_the_set_of_lifts(widths, samples, seed, residual):
    model = mlp(widths, seed=seed)
    loader = data_for(widths[0], widths[2], samples, seed, 1)
    x = loader[0][0]
    edit = deepen(model, "0", loader, residual=residual)
    part = samples // 2
    generator = torch.Generator().manual_seed(seed)
    for point in (edit, *lifted_manifold(edit, loader, generator=generator, count=2)):
        first = point.model.get_submodule(edit.lifts[0].path)
        margins = [
            float(first(point.model[:2](some)).detach().min()) for some in (x[:part], x)
        ]
        # A lift for all data is one for each part, and no nearer to a kink.
        assert margins[0] >= margins[1] - 1e-12
        assert margins[1] > 0
        change = outputs(point.model, [(x[:part], 0)]) - outputs(model, [(x[:part], 0)])
        assert change.abs().max() <= 1e-12


def test_some_lifts_for_a_part_are_none_for_all_data():
    model, loader = mlp([1, 2, 1], nn.LeakyReLU), data_for(1, 1, 12, batches=1)
    x = loader[0][0].sort(0).values
    part = [(x[4:8], torch.zeros(4))]
    edit = deepen(model, "0", part, activation=nn.ReLU())
    assert edit.proof.output_change <= 1e-12
    first = edit.model.get_submodule(edit.lifts[0].path)
    with torch.no_grad():
        values = first(edit.model[:2](x))
    assert (values[4:8] > 0).all()
    assert (values.min(0).values < values[4:8].min(0).values).any()
    # The data that were left out: here pre-activations meet the kink, and outputs change.
    with torch.no_grad():
        first.bias.sub_(edit.proof.margin * 0.999)
        last = edit.model.get_submodule(edit.lifts[0].reader)
        last.bias.add_(edit.proof.margin * 0.999 * last.weight.sum(1))
    same = outputs(edit.model, part) - outputs(model, part)
    other = outputs(edit.model, [(x, 0)]) - outputs(model, [(x, 0)])
    assert same.abs().max() <= 1e-12
    assert other.abs().max() > 1e-4


@pytest.mark.parametrize("mode", ["zeros", "replicate", "circular", "reflect"])
@pytest.mark.parametrize("residual", [False, True])
def test_outputs_hold_within_the_radius_in_the_worst_direction(mode, residual):
    def build():
        conv = nn.Conv2d(2, 3, 3, padding=0 if residual else 1, padding_mode=mode)
        # Taps of one sign: at the border they read one place together.
        conv.weight.data.abs_()
        maps = 3 * (2 if residual else 4) ** 2
        return nn.Sequential(conv, nn.Flatten(), nn.Linear(maps, 2))

    model, x = seeded(build), normal(3, 2, 4, 4, seed=1)
    loader = [(x, torch.zeros(3).long())]
    width = None if residual else 3
    construction = "auto" if residual else "preactivations"
    edit = deepen(
        model, "input", loader, residual=residual, width=width,
        construction=construction,
    )  # fmt: skip
    first = edit.model.get_submodule(edit.lifts[0].path)
    values = first(x.requires_grad_()).flatten()
    steps = [torch.autograd.grad(v, x, retain_graph=True)[0] for v in values]
    for step in steps[:: max(1, len(steps) // 40)]:
        near = x.detach() - 0.999 * edit.proof.radius * step / step.norm()
        with torch.no_grad():
            assert (first(near) > 0).all()
        change = outputs(edit.model, [(near, 0)]) - outputs(model, [(near, 0)])
        assert change.abs().max() <= 1e-12
