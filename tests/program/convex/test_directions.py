import numpy as np
import pytest
import torch

from layerpeel.program.convex.directions import Directions
from tests.program.convex.cases import generator, normal


def assert_decomposes(directions, matrix):
    np.testing.assert_allclose(directions.matrix, matrix, rtol=0, atol=1e-12)
    for vectors in (directions.left, directions.right):
        gram = vectors.T @ vectors
        np.testing.assert_allclose(gram, torch.eye(len(gram)), rtol=0, atol=1e-12)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    kept = len(directions.values)
    np.testing.assert_allclose(directions.values, values[:kept], rtol=0, atol=1e-12)


def test_decomposes_a_matrix():
    matrix = normal(generator(0), 7, 7)
    assert_decomposes(Directions.of(matrix), matrix)


@pytest.mark.parametrize("rank", [1, 3, 4, 7])
def test_decomposes_a_product_by_its_rank(rank):
    rng = generator(rank)
    left, right = normal(rng, 7, rank), normal(rng, 7, rank)
    directions = Directions.of_product(left, right)
    assert len(directions.values) == rank
    assert_decomposes(directions, left @ right.T)


def test_keeps_a_mask_or_a_range():
    directions = Directions.of(torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()))
    assert directions.kept(directions.values > 1.5).values.tolist() == [3.0, 2.0]
    assert directions.kept(torch.arange(1)).matrix.tolist() == [
        [3, 0, 0],
        [0] * 3,
        [0] * 3,
    ]
