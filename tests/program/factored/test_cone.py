import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.factored._cone import cone_maximum


def symmetric(size, seed):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return matrix + matrix.T


def least_bound(matrix):
    """The least largest eigenvalue over nonnegative additions, as a convex program."""
    addition = cp.Variable(matrix.shape, symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.lambda_max(matrix + addition)), [addition >= 0])
    return problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [2, 3, 6])
def test_reaches_the_least_bound_when_given_as_target(size, seed):
    matrix = symmetric(size, seed)
    least = least_bound(matrix)
    if least > 0.1:
        found = cone_maximum(matrix, least)
        assert found == pytest.approx(least, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_bounds_all_nonnegative_directions_whatever_the_target(size, seed, target):
    matrix = symmetric(size, seed)
    directions = np.abs(np.random.default_rng(seed).normal(size=(500, size)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    forms = np.einsum("nk,kl,nl->n", directions, matrix, directions)
    bound = cone_maximum(matrix, target)
    assert bound >= forms.max() - 1e-12
    assert bound >= np.diagonal(matrix).max() - 1e-12


def test_classes_that_repel_each_other_count_alone():
    matrix = np.array([[2.0, -5.0, 0.0], [-5.0, 3.0, -1.0], [0.0, -1.0, 1.0]])
    assert cone_maximum(matrix, 3.0) == pytest.approx(3.0, rel=1e-14)
