from dataclasses import replace

import numpy as np
import pytest

from layerpeel.program import (
    MSE,
    CrossEntropy,
    Decay,
    Energy,
    PeeledProblem,
    collapse_threshold,
)
from layerpeel.program.closed import collapse_count, nonnegative_collapse_threshold
from layerpeel.program.merging import merging_counts
from tests.program import reference

COUNTS = [600.0] * 3 + [40.0] * 3
TOTAL = sum(COUNTS)


def merging(problem):
    return merging_counts(problem, problem.solve())


@pytest.mark.parametrize("bias", [None, "free", 0.1])
@pytest.mark.parametrize(
    ("loss", "decay"),
    [
        (CrossEntropy(), Decay(2e-3, features=1e-3)),
        (CrossEntropy(), Decay(2e-3, features=1e-3, per="class")),
        (CrossEntropy(smoothing=0.2), Decay(2e-3, features=1e-3)),
        (MSE(), Decay(2e-3, features=1e-3)),
        (MSE(), Decay(2e-3, features=1e-3, per="class")),
    ],
    ids=str,
)
def test_one_layer_agrees_with_the_collapse_count(loss, decay, bias):
    problem = PeeledProblem(COUNTS, loss=loss, weight_decay=decay, bias=bias)
    count = collapse_count(total=TOTAL, weight_decay=decay, loss=loss)
    np.testing.assert_allclose(merging(problem), count, rtol=1e-12)


@pytest.mark.parametrize("per", ["sample", "class"])
@pytest.mark.parametrize("depth", [2, 3])
def test_deep_squared_error_agrees_with_the_collapse_count(depth, per):
    decay = Decay(*[1e-3] * depth, features=1e-3, per=per)
    problem = PeeledProblem(COUNTS, loss="mse", weight_decay=decay)
    count = collapse_count(total=TOTAL, weight_decay=decay, loss="mse")
    np.testing.assert_allclose(merging(problem), count, rtol=1e-12)


def test_behind_a_relu_classes_need_more():
    decay = Decay(2e-3, features=1e-3)
    problem = PeeledProblem(COUNTS, weight_decay=decay, features="nonnegative")
    count = collapse_count(total=TOTAL, weight_decay=decay) * 6 / 5
    np.testing.assert_allclose(merging(problem), count, rtol=1e-12)


@pytest.mark.parametrize(
    ("features", "threshold"),
    [("free", collapse_threshold), ("nonnegative", nonnegative_collapse_threshold)],
)
@pytest.mark.parametrize("energy", [(1.0, 5.0), (0.2, 1.0), (2.0, 8.0)])
def test_at_the_threshold_of_the_energies_the_minority_merges(
    features, threshold, energy
):
    ratio = threshold(majority=4, minority=3, energy=energy)
    counts = [ratio] * 4 + [1.0] * 3
    problem = PeeledProblem(counts, energy=energy, features=features)
    np.testing.assert_allclose(merging(problem), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"bias": "free"},
        {"loss": CrossEntropy(smoothing=0.1), "energy": (0.5, 2.0)},
        {"energy": Energy(0.5, 2.0, "sample")},
        {"loss": "mse", "energy": (0.3, 0.3)},
    ],
    ids=str,
)
def test_a_budget_has_the_multiplier_that_its_objective_shows(keywords):
    """The multiplier is the slope of the optimal value in the budget."""
    counts, step = [9.0, 9.0, 3.0], 0.02
    problem = PeeledProblem(counts, **({"energy": (1.0, 2.0)} | keywords))
    program = problem.class_level()
    budget = program.regulariser.budget

    def optimum(factor):
        held = replace(program.regulariser, budget=budget * factor)
        return reference.cvxpy_solve(replace(program, regulariser=held))[0]

    slope = (optimum(1 - step) - optimum(1 + step)) / (2 * step * budget)
    pi, delta = program.weights.numpy(), program.feature_weights.numpy()
    smoothing = getattr(problem.loss, "smoothing", 0.0)
    excess = pi * (1 - smoothing) / (slope * delta)
    power = 2 if problem.energy.per == "sample" else 1
    np.testing.assert_allclose(merging(problem), counts / excess**power, rtol=3e-3)


VARIANTS = {
    "plain": {},
    "free bias": {"bias": "free"},
    "ridge bias": {"bias": 0.05},
    "class weights": {"class_weights": (1, 1, 2, 2)},
    "scales": {"loss": CrossEntropy(scale=(2, 2, 0.5, 0.5))},
    "margins": {"loss": CrossEntropy(margin=(1, 1, 2, 2))},
    "offsets": {"loss": CrossEntropy(offset=(1, 1, -1, -1))},
    "smoothing, weights": {
        "loss": CrossEntropy(smoothing=0.1),
        "class_weights": (1, 1, 3, 3),
    },
    "squared error": {"loss": "mse", "bias": 0.05},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_are_equal_on_one_side_of_the_count_only(name):
    keywords = VARIANTS[name]
    per = ("sample", "class")[list(VARIANTS).index(name) % 2]
    counts = [50.0, 50.0, 20.0, 20.0]

    def problem(scale):
        decay = Decay(scale, features=scale, per=per)
        return PeeledProblem(counts, weight_decay=decay, **keywords)

    first = problem(1e-3)
    needed = counts[3] / float(merging(first)[3])
    # The count grows like the product of decays, or like its root, per class.
    scale = 1e-3 * (needed**0.5 if per == "sample" else needed)
    assert float(merging(problem(scale))[3]) == pytest.approx(counts[3], rel=1e-9)
    assert spread(problem(0.9 * scale)) > 1e-2
    assert spread(problem(1.1 * scale)) < 1e-3


def spread(problem):
    """How far apart the own and the other logits of the rare classes are."""
    _, logits, _ = reference.cvxpy_solve(problem.class_level())
    return abs(logits[3, 3] - logits[2, 3])


def test_a_budget_that_is_not_spent_merges_nothing():
    problem = PeeledProblem(COUNTS, loss="mse", energy=(10.0, 10.0))
    np.testing.assert_array_equal(merging(problem), 0.0)


@pytest.mark.parametrize(
    "keywords",
    [
        {"weight_decay": (1e-3, 1e-3, 1e-3)},
        {"weight_decay": (1e-3, 1e-3), "width": 4},
        {"weight_decay": (1e-3, 1e-3), "loss": "mse", "width": 5},
        {"weight_decay": (1e-3, 1e-3), "features": "nonnegative", "bias": "free"},
        {"weight_decay": (1e-3, 1e-3, 1e-3), "loss": "mse", "bias": 0.1},
    ],
    ids=str,
)
def test_there_is_no_count_without_a_threshold(keywords):
    problem = PeeledProblem(COUNTS, **keywords)
    solved = PeeledProblem(COUNTS, weight_decay=(1e-3, 1e-3)).solve()
    assert merging_counts(problem, solved) is None
