import json
import math

import numpy as np
import pytest
import torch

from layerpeel.program import PeeledProblem
from layerpeel.program.merging import merging_counts
from layerpeel.reports.forecasts.groups import (
    MOST_GROUPS,
    TAIL_PARTS,
    State,
    group_forecasts,
)


def groups_of(problem, method="auto"):
    solution = problem.solve(method=method)
    merging = merging_counts(problem, solution)
    return group_forecasts(problem, solution, merging), solution


# R0 = 12.192 at these energies; R1 = 5.7053 for seven and three classes.
STATES = {
    "below R0": (([12.1] * 5 + [1] * 5), {}, [State.APART, State.APART]),
    "above R0": (([12.3] * 5 + [1] * 5), {}, [State.APART, State.MERGED]),
    "above R1": (([5.71] * 7 + [1] * 3), {}, [State.APART, State.VANISHED]),
    "behind a ReLU": (
        [12.3] * 5 + [1] * 5,
        {"features": "nonnegative"},
        [State.APART, State.NO_FEATURE],
    ),
    "one rare class": ([100.0] * 3 + [1], {}, [State.APART, State.APART]),
    "three groups": (
        [500.0] * 4 + [10] * 3 + [5] * 3,
        {},
        [State.APART, State.MERGED, State.MERGED],
    ),
}


@pytest.mark.parametrize("case", STATES.values(), ids=STATES.keys())
def test_states_follow_the_thresholds(case):
    counts, keywords, states = case
    groups, _ = groups_of(PeeledProblem(counts, energy=(1, 5), **keywords))
    assert [group.state for group in groups] == states
    assert sum(group.collapsed for group in groups) == sum(
        len(group.classes) for group in groups if group.state.collapsed
    )


def test_a_decay_that_is_too_strong_leaves_nothing():
    groups, _ = groups_of(PeeledProblem([9, 9, 4], weight_decay=(1.0, 1.0)))
    assert {group.state for group in groups} == {State.VANISHED}
    assert [group.counts for group in groups] == ["9", "4"]


@pytest.mark.parametrize("method", ["grouped", "spectral"])
def test_the_solver_does_not_matter(method):
    problem = PeeledProblem([300.0] * 3 + [2.0] * 3, energy=(1, 2))
    groups, _ = groups_of(problem, method)
    assert [group.state for group in groups] == [State.APART, State.MERGED]


def test_norms_and_cosines_are_those_of_the_vectors():
    counts = [40, 7, 40, 7, 40]
    groups, solution = groups_of(PeeledProblem(counts, energy=(2, 3), bias="free"))
    W, H = solution.classifiers().numpy(), solution.class_means().numpy()
    assert [group.classes for group in groups] == [(0, 2, 4), (1, 3)]

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    first, second = groups
    assert first.classifier_norm == pytest.approx(np.linalg.norm(W[0]), rel=1e-9)
    assert second.feature_norm == pytest.approx(np.linalg.norm(H[1]), rel=1e-9)
    assert first.classifier_cosine == pytest.approx(cosine(W[0], W[2]), abs=1e-9)
    assert second.feature_cosine == pytest.approx(cosine(H[1], H[3]), abs=1e-9)
    assert second.cosine_to_first == pytest.approx(cosine(W[1], W[4]), abs=1e-9)
    assert math.isnan(first.cosine_to_first)


def test_a_long_tail_is_shown_in_parts():
    counts = np.geomspace(1000, 3, 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()
    groups, solution = groups_of(PeeledProblem(counts[order], energy=(1, 5)))
    assert len(groups) == TAIL_PARTS < MOST_GROUPS
    classes = [k for group in groups for k in group.classes]
    assert [order[k] for k in classes] == list(range(30))
    assert {len(group.classes) for group in groups} <= {3, 4}
    assert groups[0].most == 1000
    assert groups[-1].counts == f"{counts[-4]:.4g} to 3"
    norms = solution.geometry.classifier_norms[classes[:4]]
    assert groups[0].classifier_norm == pytest.approx(float(norms.mean()))


def test_distinct_counts_below_the_threshold_are_drawn_together():
    counts = np.geomspace(1280, 5, 40)
    groups, solution = groups_of(PeeledProblem(counts, energy=(1, 10)))
    merging = merging_counts(PeeledProblem(counts, energy=(1, 10)), solution)
    below = merging.numpy() >= counts
    for group in groups:
        rare = int(below[list(group.classes)].sum())
        assert group.drawn_together == rare
        assert (group.state is State.DRAWN_TOGETHER) == (rare > 0)
        assert group.collapsed == 0
        if rare == len(group.classes):
            assert group.classifier_cosine > 0.99
    states = [group.state for group in groups]
    assert states[0] is State.APART
    assert states[-1] is State.DRAWN_TOGETHER
    assert 0 < below.sum() < len(counts)


def test_a_class_alone_below_the_threshold_has_no_other_to_be_drawn_to():
    problem = PeeledProblem([100.0] * 3 + [1], energy=(1, 5))
    groups, solution = groups_of(problem)
    assert float(merging_counts(problem, solution)[3]) > 1
    assert [group.state for group in groups] == [State.APART] * 2


def test_merged_classes_and_one_beside_them_are_told_apart():
    groups, _ = groups_of(PeeledProblem([500.0] * 4 + [10] * 3 + [5], energy=(1, 5)))
    states = [group.state for group in groups]
    assert states == [State.APART, State.MERGED, State.DRAWN_TOGETHER]
    assert groups[-1].classifier_norm == pytest.approx(
        groups[1].classifier_norm, rel=0.1
    )


def test_a_part_may_collapse_in_part():
    counts = [100.0 + k for k in range(10)] + [1.0] * 3 + [2.0, 3.0, 4.0]
    problem = PeeledProblem(counts, weight_decay=(1e-3, 2e-3), features="nonnegative")
    groups, solution = groups_of(problem)
    zero = (solution.class_means().norm(dim=1) == 0).tolist()
    assert 0 < sum(zero) < len(counts)
    for group in groups:
        assert group.collapsed == sum(zero[k] for k in group.classes)
        if 0 < group.collapsed < len(group.classes):
            assert group.state is State.MIXED


def test_content_is_ready_for_json():
    groups, _ = groups_of(PeeledProblem([9, 9, 1], energy=(1, 1)))
    said = json.loads(json.dumps([group.to_dict() for group in groups]))
    assert said[0]["state"] == "APART"
    assert said[1]["classifier_cosine"] is None
    assert said[1]["merges_at"] == pytest.approx(groups[1].merges_at)


def test_best_found_rows_are_told_apart():
    problem = PeeledProblem([50] * 3, weight_decay=(1e-3, 1e-3), width=1)
    groups, _ = groups_of(problem)
    assert groups[0].state is State.APART
    assert groups[0].merges_at is None
