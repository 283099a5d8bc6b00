import pytest
import torch

from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def bench():
    return script("split_screening")


def test_every_layer_is_screened(bench):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = [(torch.randn(4, 784), torch.arange(4))]
        for model, path in bench.networks(3).values():
            ratio, screening, backward = bench.compare(model.eval(), path, data, 1)
            assert ratio == pytest.approx(screening / backward)
