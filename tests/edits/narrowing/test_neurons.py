import torch
from torch import nn

from layerpeel.edits.graph import Graph
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.resizing import Resizing
from tests.edits.narrowing.planted import constant
from tests.edits.networks import convolutional, images, mlp, seeded


def neurons_of(model, path):
    graph = Graph(model, "layer")
    layer = graph.layer(path)
    return Neurons.of(graph, layer, Resizing(graph, layer))


def test_rows_are_what_comes_before_the_activation():
    model = convolutional()
    neurons = neurons_of(model, "conv1")
    x = images()[0][0]
    with torch.no_grad():
        expected = model.bn1(model.conv1(x)).flatten(2)
    patches = nn.functional.unfold(x, 3, padding=1)
    patches = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
    torch.testing.assert_close(neurons.rows @ patches, expected)
    assert neurons.folded


def test_outgoing_lengths_are_of_all_taps():
    model = convolutional()
    lengths = neurons_of(model, "conv1").outgoing
    expected = model.conv2.weight.detach().square().sum((0, 2, 3)).sqrt()
    torch.testing.assert_close(lengths, expected)


def test_constants_are_those_of_weights_that_are_zero():
    model = mlp([3, 4, 2], nn.Sigmoid)
    constant(model[0], 1, 0.0)
    constant(model[0], 3, -2.0)
    values = neurons_of(model, "0").constants
    assert values.isnan().tolist() == [True, False, True, False]
    expected = torch.sigmoid(torch.tensor([0.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(values[[1, 3]], expected)


def test_constants_know_the_slope_of_their_neuron():
    model = mlp([3, 4, 2], lambda: nn.PReLU(4))
    model[1].weight.data[3] = 0.75
    constant(model[0], 3, -2.0)
    assert neurons_of(model, "0").constants[3] == -1.5


def test_steepness_is_the_largest_slope():
    assert neurons_of(mlp([3, 4, 2]), "0").lipschitz == 1
    assert neurons_of(mlp([3, 4, 2], lambda: nn.LeakyReLU(-3.0)), "0").lipschitz == 3
    steep = mlp([3, 4, 2], lambda: nn.PReLU(4))
    steep[1].weight.data[2] = 1.5
    assert neurons_of(steep, "0").lipschitz == 1.5


def test_what_stretches_before_the_activation_has_no_bound():
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 1),
            nn.Upsample(scale_factor=2),
            nn.ReLU(),
            nn.Conv2d(3, 2, 1),
        )
    )
    assert neurons_of(model, "0").lipschitz == torch.inf
