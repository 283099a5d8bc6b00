import numpy as np
import pytest

from layerpeel.program.factored import _search
from layerpeel.program.factored._objective import FactorObjective
from layerpeel.program.factored._search import agreeing, descents, improves, lowest
from layerpeel.program.factored._starts import Starts
from tests.program.reference import make_program

KINDS = {
    "penalty": {"decay": (1e-3, 1e-3)},
    "deep": {"decay": (1e-3,) * 3},
    "budget": {"energy": (1.0, 5.0)},
    "nonnegative": {"decay": (1e-3,) * 3, "nonnegative": True, "bias": "free"},
}


def objective_of(kind, width=5):
    return FactorObjective(make_program([1.0] * 5, **KINDS[kind]), width)


def rank_of(objective, point):
    return np.linalg.matrix_rank(objective.logits(point), tol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_all_starts_are_feasible_and_most_can_move(kind):
    objective = objective_of(kind)
    starts = Starts(objective, seed=0)
    points = [*starts.structured(), *starts.sweep(6)]
    points += [starts.near(points[-1], index) for index in range(4)]
    moving = 0
    for point in points:
        x = objective.pack(point)
        assert (x >= objective.lower).all()
        value, gradient = objective.value_and_gradient(x)
        assert np.isfinite(value)
        moving += np.abs(gradient).max() > 0
    assert moving >= len(points) - 1


def test_several_layers_sweep_all_ranks_and_one_layer_does_not():
    deep, flat = objective_of("deep"), objective_of("penalty")
    ranks = [rank_of(deep, point) for point in Starts(deep, 0).sweep(5)]
    # The columns sum to zero: five random directions have rank four.
    assert ranks == [4, 4, 3, 2, 1]
    assert {rank_of(flat, point) for point in Starts(flat, 0).sweep(5)} == {4}


def test_starts_near_a_point_have_about_its_rank_or_one_less():
    objective = objective_of("deep")
    starts = Starts(objective, 0)
    best = list(starts.sweep(5))[3]
    assert rank_of(objective, best) == 2
    assert {rank_of(objective, starts.near(best, 2 * i)) for i in range(6)} == {1}
    assert {rank_of(objective, starts.near(best, 2 * i + 1)) for i in range(20)} == {
        2,
        3,
        4,
    }


def test_ends_are_ordered_by_value_and_counted():
    objective = objective_of("deep")
    ends = list(descents(objective, (), starts=4, seed=0, max_steps=500))
    assert len(ends) >= 2 + 4
    best = lowest(ends)
    assert best is not None
    assert best.value == min(end.value for end in ends)
    equal = sum(end.value <= best.value * (1 + 1e-8) for end in ends)
    assert agreeing(objective, ends, best) == equal
    worst = max(ends, key=lambda end: end.value)
    assert improves(objective, best, [worst])
    assert not improves(objective, worst, [best])
    assert not improves(objective, best, [best])
    assert lowest([]) is None


def test_random_blocks_ignore_each_other():
    objective = objective_of("deep")
    starts = Starts(objective, 0)
    counts = set()
    for index in range(12):
        logits = objective.logits(starts.blocks(index))
        np.testing.assert_allclose(logits.sum(axis=0), 0, atol=1e-12)
        together = np.abs(logits) > 1e-9
        alone = ~together.any(axis=0)
        blocks = {tuple(row) for row in together[~alone]}
        assert (together == together.T).all()
        assert np.linalg.matrix_rank(logits, tol=1e-9) == 5 - alone.sum() - len(blocks)
        counts.add(len(blocks) + alone.sum())
    assert len(counts) > 2


@pytest.mark.parametrize("agreed", [0, 1, 10**9])
def test_more_starts_follow_while_few_agree(agreed, monkeypatch):
    monkeypatch.setattr(_search, "_AGREED", agreed)
    objective = objective_of("deep")
    ends = list(descents(objective, (), starts=3, seed=0, max_steps=300))
    # Two starts are given, and up to twice as many as asked for follow.
    assert len(ends) == 2 + 3 + (6 if agreed == 10**9 else 0)
    flat = list(descents(objective_of("penalty"), (), starts=3, seed=0, max_steps=99))
    assert len(flat) == 2 + 3


def test_fewer_follow_for_many_classes():
    options = {"decay": (1e-3,) * 3}
    few = FactorObjective(make_program([1.0] * 20, **options), 20)
    many = FactorObjective(make_program([1.0] * 60, **options), 60)
    assert _search._more_starts(few, 9) == 18
    assert _search._more_starts(many, 9) == 2
