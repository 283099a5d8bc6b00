from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel.studies.loss_levels.levels import clusters


def test_neighbours_are_put_together_highest_first():
    losses = [0.3, 0.1, 0.3 * (1 - 1e-7), 0.1 * (1 + 1e-5), 0.30001]
    assert [c.tolist() for c in clusters(losses, 1e-6)] == [[4], [0, 2], [3], [1]]
    assert [c.tolist() for c in clusters(losses, 1e-4)] == [[4, 0, 2], [3, 1]]


def test_chains_of_neighbours_are_one_cluster():
    assert len(clusters([1.0, 0.995, 0.99, 0.985], 0.01)) == 1


def test_losses_at_rounding_are_zero_together():
    assert [c.tolist() for c in clusters([1e-33, 0.5, 0.0, 4e-30], 1e-6)] == [
        [1], [3, 0, 2],
    ]  # fmt: skip


def test_nothing_is_no_cluster():
    assert clusters([], 1e-6) == []


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=20), st.sampled_from([1e-6, 0.1])
)
def test_clusters_part_the_losses_at_gaps(losses, gap):
    found = clusters(torch.tensor(losses, dtype=torch.float64), gap)
    assert sorted(i for c in found for i in c.tolist()) == list(range(len(losses)))
    values = [[losses[i] for i in c.tolist()] for c in found]
    for members in values:
        for a, b in pairwise(members):
            assert a - b <= max(gap * a, 1e-14 * max(losses))
    for above, below in pairwise(values):
        assert above[-1] - below[0] > gap * above[-1]
        assert min(above) == pytest.approx(above[-1], rel=0)
