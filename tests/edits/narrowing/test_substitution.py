import torch
from torch import nn

from layerpeel.edits.graph import Graph
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.substitution import GONE, Substitution
from layerpeel.edits.resizing import Resizing
from tests.edits.networks import mlp


def chains_of(model):
    graph = Graph(model, "layer")
    layer = graph.layer("0")
    return Neurons.of(graph, layer, Resizing(graph, layer)).chains


def test_weights_are_summed_with_their_factors_and_shifts_go_to_the_bias():
    model = mlp([3, 5, 2], nn.Tanh)
    (chain,) = chains_of(model)
    found = Substitution.none(5)
    found.put(3, 1, -1.0, 0.5)
    found.put(4, 1, 2.0, 0.0)
    found.put(0, GONE, 0.0, 0.7)
    reading = found.read(chain)
    v = model[2].weight.detach()
    assert found.kept.tolist() == [1, 2]
    expected = torch.stack([v[:, 1] - v[:, 3] + 2 * v[:, 4], v[:, 2]], 1)
    torch.testing.assert_close(reading.blocks[:, :, 0], expected)
    torch.testing.assert_close(reading.shift, 0.5 * v[:, 3] + 0.7 * v[:, 0])


def test_none_changes_no_bit():
    model = mlp([3, 5, 2])
    (chain,) = chains_of(model)
    reading = Substitution.none(5).read(chain)
    assert torch.equal(reading.blocks[:, :, 0], model[2].weight.detach())
    assert not reading.shift.any()


def test_a_neuron_can_stand_for_itself_again():
    found = Substitution.none(4)
    found.put(2, 0, 3.0, 1.0)
    found.undo(2)
    assert found.kept.tolist() == [0, 1, 2, 3]
    assert found.factors.tolist() == [1.0] * 4
    assert not found.shifts.any()


def test_groups_cancel_up_to_rounding_and_no_further():
    model = mlp([3, 4, 2])
    with torch.no_grad():
        model[2].weight[:, 2] = -model[2].weight[:, 0] / 3 * (1 + 4e-16)
        model[2].weight[:, 3] = -model[2].weight[:, 1] * (1 + 1e-13)
    chains = chains_of(model)
    found = Substitution.none(4)
    found.put(2, 0, 3.0, 0.0)
    found.put(3, 1, 1.0, 0.0)
    assert found.cancelled(chains) == [0]
    left = found.without([0])
    assert left.kept.tolist() == [1]
    assert left.leaders.tolist() == [GONE, 1, GONE, 1]
