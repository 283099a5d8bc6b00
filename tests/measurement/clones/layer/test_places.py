import torch
from torch import nn

from layerpeel.measurement.clones.layer.places import HeadInput, ModuleOutput, Place
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.head import find_head
from tests.measurement.sources import tapped
from tests.measurement.sources.tapped import built, inputs


def batch(*shape, n=7):
    return Batch((inputs(*shape, n=n),), {}, torch.zeros(n, dtype=torch.int64))


def test_the_head_and_what_feeds_it_are_one_layer():
    model, data = built(tapped.mlp), batch(5)
    with evaluating(model):
        head = HeadInput(model, find_head(model, data))
        output = ModuleOutput(model, "3", "pooled")
        one, two = head.facts(data), output.facts(data)
        assert torch.equal(head.rows(data), output.rows(data))
        logits = [place.logits(data, torch.sin) for place in (head, output)]
    assert torch.allclose(logits[0], logits[1].double(), atol=1e-6)
    assert torch.equal(one.consumer.weight, two.consumer.weight)
    assert torch.equal(two.consumer.bias, torch.zeros(4).double())
    assert (one.width, one.eps, one.outputs, one.classifies) == (6, 2.0**-23, 4, True)
    assert (two.width, two.eps, two.outputs, two.classifies) == (6, 2.0**-23, 4, True)
    assert isinstance(head, Place)
    assert isinstance(output, Place)


def test_a_hidden_consumer_does_not_classify():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.fc2(self.fc1(x)).mul_(2)

    model, data = built(Doubling), batch(5)
    with evaluating(model):
        facts = ModuleOutput(model, "fc1", "pooled").facts(data)
    assert (facts.consumer.name, facts.classifies) == ("fc2", False)


def test_a_single_sample_with_channels_last():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(3, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(torch.relu(self.mix(x)).mean((1, 2)))

    model, data = built(Last), batch(4, 5, 3, n=1)
    with evaluating(model), torch.no_grad():
        place = ModuleOutput(model, "mix", "pooled")
        facts = place.facts(data)
        expected = torch.relu(model.mix(*data.args)).double().mean((1, 2))
        assert torch.allclose(place.rows(data), expected)
    assert facts.width == 6
    assert facts.cause == "a consumer that is no linear layer: mean reads it"
