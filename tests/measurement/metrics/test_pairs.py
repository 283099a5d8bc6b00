import itertools

import numpy as np
import pytest
import torch

from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics import pairs
from layerpeel.measurement.metrics.pairs import (
    cosines,
    distance_blocks,
    row_blocks,
    squared_distances,
)
from tests.measurement.metrics.vectors import random_rows


def clusters(classes, width, groups, spread):
    """Tight groups of vectors: most pairs cancel, also about their common mean."""
    centres = random_rows(groups, width, seed=1)
    near = spread * random_rows(classes, width, seed=2)
    return centres[torch.arange(classes) % groups] + near


def minority(classes, width, spread):
    """Half of the vectors far apart, half of them close together."""
    rows = random_rows(classes, width)
    half = classes // 2
    return torch.cat([rows[:half], rows[:1] + spread * rows[half:]])


def nested(classes, width):
    """Three clusters, in each of them three, and in each of these three more."""
    rows, index = 1e-9 * random_rows(classes, width), torch.arange(classes)
    for level, size in enumerate((1.0, 1e-3, 1e-6)):
        rows += size * random_rows(27, width, seed=level)[index // 3**level % 3]
    return rows


CASES = {
    "random": random_rows(40, 7),
    "simplex": simplex_etf(33, 40),
    "far away": random_rows(40, 7) + 1e6,
    "one far away": torch.cat([random_rows(30, 7), torch.full((1, 7), 1e8).double()]),
    "minority": minority(40, 7, 1e-6),
    "clusters": clusters(40, 7, 3, 1e-5),
    "clusters in order": clusters(60, 9, 6, 1e-5)[
        torch.arange(60) % 10 * 6 + torch.arange(60) // 10
    ],
    "many small clusters": clusters(60, 9, 20, 1e-5),
    "clusters in clusters": nested(81, 9),
    "clusters far away": clusters(60, 9, 3, 1e-2) + 1e6,
    "a line": torch.linspace(0, 1, 60).double()[:, None].pow(6) * random_rows(1, 5),
    "one feature": random_rows(40, 1),
    "two": random_rows(2, 3),
}


def slow(vectors, i, j):
    difference = vectors[i].numpy().astype(np.longdouble) - vectors[j].numpy()
    return (difference**2).sum()


@pytest.mark.parametrize("rows", [1, 16, 256])
@pytest.mark.parametrize("name", CASES)
def test_distances_are_those_of_differences(name, rows, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK_ROWS", rows)
    vectors = CASES[name]
    seen = []
    for block in squared_distances(vectors):
        for i, j, value in zip(
            block.first.tolist(), block.second.tolist(), block.values, strict=True
        ):
            seen.append((i, j))
            np.testing.assert_allclose(float(value), slow(vectors, i, j), rtol=1e-11)
    assert seen == list(itertools.combinations(range(len(vectors)), 2))


def test_whole_rows_are_the_same_and_symmetric():
    vectors = CASES["minority"]
    whole = torch.cat([block for _, block in distance_blocks(vectors)])
    torch.testing.assert_close(whole, whole.T, rtol=1e-11, atol=0)
    assert not whole.diagonal().any()
    (upper,) = squared_distances(vectors)
    np.testing.assert_allclose(
        whole[upper.first, upper.second], upper.values, rtol=1e-11, atol=0
    )


def test_few_pairs_of_large_clusters_come_from_differences(monkeypatch):
    pairs_seen = []
    monkeypatch.setattr(
        pairs,
        "_from_differences",
        lambda vectors, first, second: pairs_seen.append(len(first)) or first.double(),
    )
    for groups in (1, 2, 10):
        list(squared_distances(clusters(600, 30, groups, 1e-6)))
    assert sum(pairs_seen) <= 600


def test_many_equal_vectors_are_at_exactly_zero():
    vectors = (random_rows(3, 6) + 0.1).repeat(20, 1)
    whole = torch.cat([block for _, block in distance_blocks(vectors)])
    same = torch.arange(60)[:, None] % 3 == torch.arange(60) % 3
    assert torch.equal(whole == 0, same)


@pytest.mark.parametrize("rows", [16, 256])
@pytest.mark.parametrize("name", ["clusters", "clusters in clusters", "minority"])
def test_whole_rows_of_clusters_are_those_of_differences(name, rows, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK_ROWS", rows)
    vectors = CASES[name]
    whole = torch.cat([block for _, block in distance_blocks(vectors)])
    expected = (vectors[:, None] - vectors).square().sum(2)
    torch.testing.assert_close(whole, expected, rtol=1e-11, atol=0)


def test_equal_vectors_are_at_exactly_zero():
    vectors = random_rows(5, 6) + 0.1
    vectors[3] = vectors[1]
    (block,) = squared_distances(vectors)
    zero = block.values == 0
    assert (block.first[zero].tolist(), block.second[zero].tolist()) == ([1], [3])


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_pair_there_is_nothing(count):
    vectors = torch.ones(count, 3).double()
    for source in (squared_distances, cosines):
        assert sum(len(block.values) for block in source(vectors)) == 0


def test_cosines_are_products():
    units = torch.nn.functional.normalize(random_rows(20, 4), dim=1)
    (block,) = cosines(units)
    expected = [
        float(units[i] @ units[j]) for i, j in itertools.combinations(range(20), 2)
    ]
    np.testing.assert_allclose(block.values, expected, atol=1e-15)


@pytest.mark.parametrize("count", [1, 16, 1000, 10_000, 10**6])
def test_blocks_cover_all_rows_and_stay_small(count):
    blocks = list(row_blocks(count))[:50]
    assert blocks[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
    assert all((b.stop - b.start) * count <= max(2**20, 16 * count) for b in blocks)
    assert blocks[-1].stop == count or len(blocks) == 50
