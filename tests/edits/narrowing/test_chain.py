import pytest
import torch
from torch import nn

from layerpeel.edits.graph import Graph
from layerpeel.edits.narrowing.chain import chains, pads_zeros
from layerpeel.edits.resizing import Resizing
from tests.edits.networks import normal, seeded


def chain_of(*between, last=None):
    """What stands between four channels and a layer that reads them."""
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.Tanh(), *between, last or nn.Conv2d(4, 3, 1)
        )
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(normal(4, seed=1))
            module.weight.data = normal(4, seed=2).abs() + 0.5
            module.bias.data = normal(4, seed=3)
    graph = Graph(model, "layer")
    layer = graph.layer("0")
    resizing = Resizing(graph, layer)
    modules = dict(graph.model.named_modules())
    return chains(layer, modules, resizing.channels)[0], model[2:-1]


def pair(factor, shift):
    """Maps of four channels, the last of which is an affine function of the first."""
    h = normal(2, 4, 6, 6)
    h[:, 3] = factor * h[:, 0] + shift
    return h


BETWEEN = [
    [],
    [nn.BatchNorm2d(4)],
    [nn.MaxPool2d(2), nn.BatchNorm2d(4)],
    [nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.BatchNorm2d(4)],
    [nn.BatchNorm2d(4), nn.AvgPool2d(2)],
    [nn.AvgPool2d(2, padding=1), nn.BatchNorm2d(4)],
    [nn.ZeroPad2d(1), nn.BatchNorm2d(4)],
    [nn.ReflectionPad2d(1), nn.AdaptiveMaxPool2d(3)],
    [nn.Upsample(scale_factor=2, mode="bilinear")],
    [nn.AdaptiveAvgPool2d(2), nn.Dropout()],
]


@pytest.mark.parametrize("between", BETWEEN, ids=repr)
@pytest.mark.parametrize(
    ("factor", "shift"),
    [(1, 0), (2.5, 0), (-1, 0), (1, 0.7), (-1, 1), (0, 0.7), (0, 0)],
)
def test_relations_hold_for_values_or_are_refused(between, factor, shift):
    chain, modules = chain_of(*between)
    one = torch.ones(1, dtype=torch.float64)
    found = chain.relation(
        torch.tensor([0]), torch.tensor([3]), factor * one, shift * one
    )
    with torch.no_grad():
        read = modules(pair(factor, shift))
    expected = found.factor[0] * read[:, 0] + found.shift[0]
    assert bool(found.holds) == torch.allclose(read[:, 3], expected, atol=1e-10)


@pytest.mark.parametrize(
    ("convolution", "pads"),
    [
        (nn.Conv2d(4, 3, 3, padding=1), True),
        (nn.Conv2d(4, 3, 3), False),
        (nn.Conv2d(4, 3, 3, padding="same"), True),
        (nn.Conv2d(4, 3, 1, padding="same"), False),
        (nn.Conv2d(4, 3, 3, padding="valid"), False),
        (nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), False),
    ],
)
def test_constants_reach_biases_unless_zeros_are_padded(convolution, pads):
    assert pads_zeros(convolution) == pads
    assert chain_of(last=convolution)[0].last.constants == (not pads)


def test_what_is_read_with_zeros_needs_no_relation():
    convolution = nn.Conv2d(4, 3, 1)
    convolution.weight.data[:, 3] = 0
    chain, _ = chain_of(nn.MaxPool2d(2), last=convolution)
    chain.blocks[:, 3] = 0
    minus = -torch.ones(1, dtype=torch.float64)
    found = chain.relation(torch.tensor([0]), torch.tensor([3]), minus, minus)
    assert bool(found.holds)
    assert not found.factor.any()
