import pytest
import torch

from layerpeel.measurement.clones.chunks import disjoint_chunks, dyadic_sizes
from layerpeel.measurement.clones.errors.doublings import Doublings
from tests.measurement.clones.layers import normal, seeded


@pytest.mark.parametrize("width", [1, 2, 3, 8, 11, 12, 44, 100])
def test_sums_are_those_of_disjoint_chunks(width):
    order = torch.randperm(width, generator=seeded(width))
    columns, weight = normal(width, 6), normal(2, width, seed=1)
    chunks = Doublings(order, dyadic_sizes(width))
    sums, features = chunks.sums(6), chunks.gathered(columns)
    for k in range(2):
        sums.fill([v[k] for v in chunks.weights(weight)], features)
        for level in chunks.levels:
            disjoint = disjoint_chunks(order, level.size)
            expected = (weight[k, disjoint, None] * columns[disjoint]).sum(1)
            found = sums.values[level.start : level.start + level.chunks]
            assert torch.allclose(found, expected[level.order], atol=1e-12)
    counts = torch.arange(chunks.rows)
    for level in chunks.levels:
        own = chunks.by_size(counts)[level.size][level.order]
        assert own.tolist() == [*range(level.start, level.start + level.chunks)]
    assert chunks.rows == sum(width // size for size in dyadic_sizes(width))
