import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program import CrossEntropy, Decay, Energy, PeeledProblem
from layerpeel.program.multiplier import (
    below_threshold,
    log_multiplier,
    spent,
)
from tests.program.reference import cvxpy_solve, nuclear_norm

COUNTS = [40.0, 22.0, 9.0, 4.0, 1.0]
VARIANTS = {
    "per class": {"energy": (1.0, 3.0)},
    "per sample": {"energy": Energy(1.0, 3.0, per="sample")},
    "free bias": {"energy": (1.0, 3.0), "bias": "free"},
    "ridge bias": {"energy": (1.0, 3.0), "bias": 0.2},
    "smoothing": {"energy": (0.5, 1.0), "loss": CrossEntropy(smoothing=0.1)},
    "margins": {"energy": (1.0, 3.0), "loss": CrossEntropy(margin=[1, 1, 1, 2, 2])},
    "squared error": {"energy": (0.3, 0.4), "loss": "mse"},
    "nonnegative": {"energy": (1.0, 3.0), "features": "nonnegative"},
}
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def solved(counts, **variant):
    problem = PeeledProblem(counts, **variant)
    return problem.class_level(), problem.solve(1e-11)


@variants
def test_is_what_a_unit_of_budget_is_worth(variant):
    # The slope of the optimal value in the budget, by central differences.
    energy = Energy.of(variant["energy"])
    values = []
    for factor in (1.001, 0.999):
        scaled = Energy(energy.classifiers * factor**2, energy.features, energy.per)
        values.append(solved(COUNTS, **variant | {"energy": scaled})[1].objective)
    program, solution = solved(COUNTS, **variant)
    slope = (values[0] - values[1]) / (0.002 * program.regulariser.budget)
    mu = math.exp(log_multiplier(program, solution))
    # Nonnegative features pay the budget's price for centring: the slope is the same.
    assert mu == pytest.approx(-slope, rel=1e-5)


@pytest.mark.parametrize(
    "variant", [v for k, v in VARIANTS.items() if k != "nonnegative"]
)
def test_is_the_spectral_norm_of_the_gradient(variant):
    program, solution = solved(COUNTS, **variant)
    logits = solution.logits.clone().requires_grad_()
    loss = program.data_term(logits, solution.bias)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = torch.linalg.matrix_norm(gradient / program.feature_weights, 2)
    found = math.exp(log_multiplier(program, solution))
    assert found == pytest.approx(float(expected), rel=1e-8)


def test_a_decay_states_it():
    program, solution = solved([9, 4, 1], weight_decay=(1e-3, 4e-3))
    assert log_multiplier(program, solution) == pytest.approx(math.log(2e-3))


def test_losses_below_the_smallest_number_have_one():
    program, solution = solved([9, 9, 1, 1], energy=(1.0, 1e7))
    log_mu = log_multiplier(program, solution)
    assert -math.inf < log_mu < math.log(np.finfo(float).tiny)


@pytest.mark.parametrize(
    "variant",
    [
        {"loss": "mse", "energy": (3.0, 3.0)},
        {"loss": CrossEntropy(smoothing=0.3), "energy": (30.0, 30.0)},
    ],
    ids=["squared error", "smoothing"],
)
def test_a_budget_that_is_not_spent_is_worth_nothing(variant):
    program, solution = solved([9, 4, 1], **variant)
    assert spent(program, solution) < 0.99 * program.regulariser.budget
    assert log_multiplier(program, solution) == -math.inf
    assert below_threshold(program, solution) == ()


@given(
    counts=st.lists(st.floats(1.0, 200.0), min_size=3, max_size=6, unique=True),
    energy=st.floats(0.3, 20.0),
)
@settings(max_examples=5, deadline=None)
def test_what_is_spent_is_the_nuclear_norm(counts, energy):
    for per in ("class", "sample"):
        program, solution = solved(counts, energy=Energy(2.0, energy, per=per))
        norm = nuclear_norm(program, solution.logits.numpy())
        assert spent(program, solution) == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("factor", [0.98, 1.02])
@pytest.mark.parametrize("per", ["class", "sample"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", CrossEntropy(smoothing=0.1)])
def test_equal_classes_below_it_have_one_classifier(loss, per, factor):
    # Three groups; the middle one is put on either side, by the penalty.
    counts = np.array([50.0] * 2 + [20.0] * 2 + [3.0] * 2)
    shares = counts / counts.sum()
    delta = np.sqrt(counts) if per == "sample" else np.ones(6)
    own = 0.9 if isinstance(loss, CrossEntropy) else 1.0
    mu = factor * own * shares[2] / delta[2]
    decay = Decay(mu, features=mu, per=per)
    program, solution = solved(counts, weight_decay=decay, loss=loss)
    below = (4, 5) if factor < 1 else (2, 3, 4, 5)
    assert below_threshold(program, solution) == below
    logits = cvxpy_solve(program, **TIGHT)[1]
    distance = np.linalg.norm(logits[2] - logits[3])
    assert distance > 1e-2 if factor < 1 else distance < 1e-4


def test_distinct_counts_below_it_lose_dimensions():
    counts = [60.0, 30.0, 15.0, 3.0, 2.0, 1.0]
    program, solution = solved(counts, energy=(1.0, 3.0))
    below = below_threshold(program, solution)
    assert below == (3, 4, 5)
    logits = cvxpy_solve(program)[1]
    values = np.linalg.svd(logits, compute_uv=False)
    assert (values > 1e-5 * values[0]).sum() <= len(counts) - len(below)
    cosines = solution.geometry.classifier_cosines[3:, 3:]
    assert 0.9 < float(cosines.min()) < 1 - 1e-6  # close, and not equal


@pytest.mark.parametrize(
    "variant",
    [
        {"energy": (1.0, 1.0), "features": "nonnegative"},
        {"weight_decay": (1e-3, 1e-3, 1e-3), "loss": "mse"},
    ],
    ids=["nonnegative", "two layers"],
)
def test_other_programs_have_other_thresholds(variant):
    program, solution = solved([9, 4, 1], **variant)
    with pytest.raises(ValueError, match="one layer and free features"):
        below_threshold(program, solution)
