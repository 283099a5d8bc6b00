from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import ShapeError
from layerpeel.measurement.clones.chunks import (
    checked_chunk,
    disjoint_chunks,
    draw_chunks,
    draw_permutation,
    dyadic_sizes,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_subset_is_as_likely():
    draws = draw_chunks(4, 2, 6000, seeded())
    seen = Counter(tuple(sorted(row)) for row in draws.tolist())
    assert set(seen) == set(combinations(range(4), 2))
    # Each count is binomial with mean 1000 and deviation 29.
    assert max(abs(count - 1000) for count in seen.values()) < 5 * 29


def test_draws_follow_the_generator_and_nothing_else():
    torch.manual_seed(1)
    first = draw_chunks(20, 5, 3, seeded(7))
    torch.manual_seed(2)
    assert torch.equal(first, draw_chunks(20, 5, 3, seeded(7)))
    assert not torch.equal(first, draw_chunks(20, 5, 3, seeded(8)))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("width", "sizes"),
    [
        (1, (1,)),
        (512, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        (1408, (1, 2, 5, 11, 22, 44, 88, 176, 352, 704, 1408)),
        (3, (1, 3)),
    ],
)
def test_dyadic_sizes_are_those_of_the_paper(width, sizes):
    assert dyadic_sizes(width) == sizes


@given(st.integers(1, 60), st.data())
def test_disjoint_chunks_share_nothing_and_leave_less_than_one_out(width, data):
    size = data.draw(st.integers(1, width))
    chunks = disjoint_chunks(draw_permutation(width, seeded(width)), size)
    flat = chunks.flatten().tolist()
    assert len(set(flat)) == len(flat) > width - size
    assert set(flat) <= set(range(width))
    assert chunks.shape[1] == size


@pytest.mark.parametrize("size", [0, -1, 6])
def test_sizes_beyond_the_layer_are_refused(size):
    with pytest.raises(ValueError, match=r"size|chunk"):
        draw_chunks(5, size, 1, seeded())
    with pytest.raises(ValueError, match=r"size|chunk"):
        disjoint_chunks(torch.arange(5), size)


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        ([], ShapeError, "at least one"),
        (torch.tensor([[0]]), ShapeError, "shape"),
        ([0, 5], ValueError, "outside: 5"),
        ([-1], ValueError, "outside: -1"),
        ([1, 1, 2], ValueError, "repeated or outside: 1"),
        (torch.tensor([0.5]), ValueError, "integers"),
        (torch.tensor([True, False]), ValueError, "mask"),
    ],
)
def test_a_chunk_is_distinct_neurons_of_the_layer(chunk, error, message):
    with pytest.raises(error, match=message):
        checked_chunk(chunk, 5)


def test_a_chunk_may_be_any_integers():
    assert checked_chunk([3, 0], 5).tolist() == [3, 0]
    assert checked_chunk(torch.tensor([3], dtype=torch.int32), 5).dtype == torch.int64
