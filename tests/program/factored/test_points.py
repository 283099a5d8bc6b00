import numpy as np
import pytest
import torch

from layerpeel.program.factored._objective import FactorObjective
from layerpeel.program.factored._points import (
    explicit_factors,
    point_of_factors,
    point_of_logits,
    point_of_pair,
    rank_of,
    widened,
)
from layerpeel.program.factors import ExplicitFactors
from tests.program.reference import factor_penalty, make_program, objective

FOUR = [20.0, 10.0, 5.0, 3.0]


def objective_of(depth, width=4, **more):
    program = make_program(FOUR, decay=(1e-3, 1e-2, 2e-3, 5e-3)[: depth + 1], **more)
    return FactorObjective(program, width)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_factors_of_logits_spend_the_least(depth):
    function = objective_of(depth)
    logits = np.random.default_rng(0).normal(size=(4, 4))
    point = point_of_logits(function, logits)
    np.testing.assert_allclose(function.logits(point), logits, atol=1e-13)
    spent = function.value(function.pack(point))
    assert spent == pytest.approx(objective(function.program, logits), rel=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("width", [2, 4, 6])
def test_pairs_keep_features_and_split_classifiers(depth, width):
    function = objective_of(depth, width, nonnegative=True)
    random = np.random.default_rng(0)
    rows, features = random.normal(size=(4, 2)), random.random((2, 4))
    point = point_of_pair(function, rows, features)
    delta = function.program.feature_weights.numpy()
    np.testing.assert_allclose(
        function.logits(point), rows @ features / delta, atol=1e-13
    )
    assert [factor.shape for factor in point.factors] == list(function.shapes)
    found = explicit_factors(function.program, point)
    spent = factor_penalty(function.program, found.rows, found.means)
    loss = function.program.data_term(found.rows @ found.means.T).item()
    assert function.value(function.pack(point)) == pytest.approx(
        loss + spent, rel=1e-12
    )


@pytest.mark.parametrize("nonnegative", [False, True])
def test_given_factors_keep_their_logits_where_the_width_allows(nonnegative):
    function = objective_of(1, nonnegative=nonnegative)
    random = np.random.default_rng(0)
    rows, means = random.normal(size=(4, 3)), random.random((4, 3))
    given = ExplicitFactors(torch.tensor(rows), torch.tensor(means))
    point = point_of_factors(function, given)
    np.testing.assert_allclose(function.logits(point), rows @ means.T, atol=1e-13)
    assert not nonnegative or (point.factors[-1] >= 0).all()


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_point_is_the_same_without_its_zeros(depth, rank):
    function, narrow = objective_of(depth), objective_of(depth, rank)
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, rank)) @ random.normal(size=(rank, 4))
    wide = point_of_logits(function, logits)
    assert rank_of(function, wide) == rank
    short = point_of_logits(narrow, logits)
    again = widened(function, short)
    np.testing.assert_allclose(function.logits(again), logits, atol=1e-13)
    # Rounding of a zero has a root of 1e-4 in the wide factors.
    np.testing.assert_allclose(function.pack(again), function.pack(wide), atol=1e-3)
    # And it stays the same on the way down: what is zero has no slope.
    _, slope = function.value_and_gradient(function.pack(again))
    _, narrow_slope = narrow.value_and_gradient(narrow.pack(short))
    norms = np.linalg.norm(slope), np.linalg.norm(narrow_slope)
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)


def test_zero_has_no_rank():
    function = objective_of(2)
    assert rank_of(function, point_of_logits(function, np.zeros((4, 4)))) == 0
