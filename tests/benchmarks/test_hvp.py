import pytest
import torch
from torch.nn.functional import cross_entropy

from layerpeel.landscape import Risk
from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def bench():
    return script("hvp")


def test_every_network_runs_on_its_inputs(bench):
    with torch.random.fork_rng():
        for model, shape in bench.networks(1).values():
            data = [(torch.randn(4, *shape), torch.arange(4))]
            risk = Risk.of(model.eval(), cross_entropy, data)
            ratio, product, gradient = bench.compare(risk, 1)
            assert ratio == pytest.approx(product / gradient)
