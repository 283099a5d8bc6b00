import pytest
import torch
from torch import nn

from layerpeel._checks import NonFiniteError
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.readings import Readings
from layerpeel.edits.narrowing.substitution import Reading
from layerpeel.edits.resizing import Resizing
from tests.edits.networks import convolutional, images, normal, seeded


def readings_of(model, path, data):
    graph = Graph(model, "layer")
    layer = graph.layer(path)
    resizing = Resizing(graph, layer)
    neurons = Neurons.of(graph, layer, resizing)
    return Readings.of(model, neurons.chains, resizing.channels, Data(data, model))


def network(mode, padding, kernel=3, stride=1):
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.Tanh(),
            nn.Conv2d(5, 3, kernel, stride, padding, padding_mode=mode),
        )
    )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_any_new_weights_change_outputs_within_the_bound(mode, padding, kernel, stride):
    model = network(mode, padding, kernel, stride)
    x = normal(7, 2, 7, 7)
    readings = readings_of(model, "0", [(x[:3], x[:3]), (x[3:], x[3:])])
    (read,) = readings.reads
    kept = torch.tensor([0, 2, 3])
    blocks = read.chain.blocks[:, kept] + 0.3 * normal(3, 3, kernel**2, seed=5)
    shifts = normal(3, kernel**2, seed=6)
    if mode == "zeros":
        shifts *= 0
    found = readings.change({"2": Reading(blocks, shifts)}, kept)
    with torch.no_grad():
        features = model[:2](x)
        old = model[2](features)
        narrow = nn.Conv2d(3, 3, kernel, stride, padding, padding_mode=mode).double()
        narrow.weight.copy_(blocks.reshape(3, 3, kernel, kernel))
        narrow.bias.copy_(model[2].bias + shifts.sum(1))
        new = narrow(features[:, kept])
    old, new = (z.movedim(1, -1).flatten(0, -2) for z in (old, new))
    measured = float((new - old).norm() / (old - old.mean(0)).norm())
    assert measured <= found * (1 + 1e-12)
    if kernel == 1 and padding == 0:
        assert readings.exact
        assert found == pytest.approx(measured, rel=1e-10)


def test_places_are_told_apart():
    model = convolutional()
    x = images(9)[0][0]
    readings = readings_of(model, "conv2", images(9))
    (read,) = readings.reads
    assert len(read.covariances) == 4
    assert not readings.exact
    with torch.no_grad():
        features = torch.relu(
            model.bn2(model.conv2(torch.relu(model.bn1(model.conv1(x)))))
        )
    for place, covariance in enumerate(read.covariances):
        rows = features.flatten(2)[:, :, place]
        expected = torch.cov(rows.T, correction=0)
        torch.testing.assert_close(covariance.matrix, expected)


def test_features_that_overflow_are_named():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 2))
    )
    model[0].weight.data.fill_(1e300)
    x = torch.full((4, 2), 1e300, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="'2' reads"):
        readings_of(model, "0", [(x, x)])
