import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program import CrossEntropy, Decay, Energy, PeeledProblem
from layerpeel.program.equivalence import equivalent_decay, equivalent_energy
from tests.program.reference import cvxpy_solve

COUNTS = [90.0, 10.0, 3.0]
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel"), 1e-9)
VARIANTS = {
    "plain": {},
    "free bias": {"bias": "free"},
    "ridge bias": {"bias": 0.1},
    "smoothing": {"loss": CrossEntropy(smoothing=0.1)},
    "margins": {"loss": CrossEntropy(margin=[1, 2, 3])},
    "scales and offsets": {"loss": CrossEntropy(scale=[1, 2, 3], offset=[0, 0.3, 0.2])},
    "class weights": {"class_weights": [1, 2, 4]},
    "squared error": {"loss": "mse"},
    "nonnegative": {"features": "nonnegative"},
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
both = pytest.mark.parametrize("per", ["class", "sample"])


def same_solution(first, second, tol):
    """Logits, bias and both Gram matrices."""
    a, b = (problem.solve(1e-12) for problem in (first, second))
    for left, right in (
        (a.logits, b.logits),
        (a.bias, b.bias),
        (a.geometry.classifier_gram, b.geometry.classifier_gram),
        (a.geometry.feature_gram, b.geometry.feature_gram),
    ):
        assert right.numpy() == pytest.approx(left.numpy(), abs=tol)


@both
@variants
def test_the_decay_of_a_budget_has_its_solution(variant, per):
    energy = Energy(0.4, 0.9, per)
    problem = PeeledProblem(COUNTS, energy=energy, **variant)
    decay = equivalent_decay(problem)
    assert decay.per == per
    twin = PeeledProblem(COUNTS, weight_decay=decay, **variant)
    same_solution(problem, twin, 1e-8)
    back = equivalent_energy(twin)
    assert back.per == per
    assert back.classifiers == pytest.approx(energy.classifiers, rel=1e-8)
    assert back.features == pytest.approx(energy.features, rel=1e-8)


@both
@pytest.mark.parametrize("variant", ["plain", "free bias", "margins", "squared error"])
def test_an_interior_point_solver_agrees(variant, per):
    problem = PeeledProblem(COUNTS, energy=Energy(0.4, 0.9, per), **VARIANTS[variant])
    decay = equivalent_decay(problem)
    twin = PeeledProblem(COUNTS, weight_decay=decay, **VARIANTS[variant])
    _, within, bias = cvxpy_solve(problem.class_level(), **TIGHT)
    _, penalised, other = cvxpy_solve(twin.class_level(), **TIGHT)
    assert penalised == pytest.approx(within, abs=1e-3)
    assert other == pytest.approx(bias, abs=1e-3)


@both
def test_the_energy_of_a_decay_has_its_solution(per):
    decay = Decay(2e-3, features=7e-3, per=per)
    problem = PeeledProblem(COUNTS, weight_decay=decay)
    energy = equivalent_energy(problem)
    same_solution(problem, PeeledProblem(COUNTS, energy=energy), 1e-7)
    again = equivalent_decay(PeeledProblem(COUNTS, energy=energy))
    assert again.layers[0] == pytest.approx(decay.layers[0], rel=1e-8)
    assert again.features == pytest.approx(decay.features, rel=1e-8)


@given(
    num_classes=st.integers(2, 12),
    count=st.floats(1.0, 1000.0),
    strength=st.floats(0.01, 0.9),
    ratio=st.floats(0.01, 100.0),
)
@settings(max_examples=15, deadline=None)
def test_balanced_classes_have_a_map_in_closed_form(
    num_classes, count, strength, ratio
):
    K, n = num_classes, count
    root = strength / (K * math.sqrt(n))  # sqrt(lam_W lam_H), below its largest value
    lam_W, lam_H = root * math.sqrt(ratio), root / math.sqrt(ratio)
    counts = [n] * K
    energy = equivalent_energy(PeeledProblem(counts, weight_decay=(lam_W, lam_H)))
    product = (K - 1) / K * math.log(1 / (math.sqrt(n) * root) - (K - 1))
    assert math.sqrt(energy.product) == pytest.approx(product, rel=1e-9)
    balance = energy.classifiers / energy.features
    assert balance == pytest.approx(n * lam_H / lam_W, rel=1e-9)
    decay = equivalent_decay(PeeledProblem(counts, energy=energy))
    assert decay.layers[0] == pytest.approx(lam_W, rel=1e-8)
    assert decay.features == pytest.approx(lam_H, rel=1e-8)


def test_decay_per_class_belongs_to_the_layer_peeled_model_and_per_sample_does_not():
    problem = PeeledProblem(COUNTS, energy=(1.0, 4.0))
    decay = equivalent_decay(problem)
    wrong = PeeledProblem(
        COUNTS, weight_decay=Decay(*decay.layers, features=decay.features)
    )
    assert not np.allclose(wrong.solve().logits, problem.solve().logits, atol=0.1)
    # lam_W E_W = lam_H E_H: both penalties are equal at an optimum.
    assert decay.layers[0] * 1.0 == pytest.approx(decay.features * 4.0, rel=1e-12)


def test_losses_below_rounding_keep_their_decay():
    problem = PeeledProblem([5.0, 3.0, 1.0], energy=(1.0, 1e4))
    decay = equivalent_decay(problem)
    assert 0 < decay.multiplier < 1e-40
    twin = PeeledProblem([5.0, 3.0, 1.0], weight_decay=decay)
    assert equivalent_energy(twin).product == pytest.approx(1e4, rel=1e-6)


PAIRS = [9.0, 9.0, 1.0, 1.0]
REFUSED = {
    "has decay": (equivalent_decay, {"weight_decay": (1e-3, 1e-3)}, "have budgets"),
    "has budgets": (equivalent_energy, {"energy": (1, 1)}, "have weight decay"),
    "two layers": (
        equivalent_energy,
        {"weight_decay": (1e-4, 1e-4, 1e-4), "loss": "mse"},
        "2 layers penalise",
    ),
    "slack": (equivalent_decay, {"energy": (9, 9), "loss": "mse"}, "must bind"),
    "zero": (equivalent_energy, {"weight_decay": (1, 1)}, "must not be zero"),
    "no multiplier": (equivalent_decay, {"energy": (1, 1e7)}, "smallest float"),
    "narrow": (equivalent_decay, {"energy": (1, 9), "width": 2}, "must be proved"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_has_no_equivalent_is_refused(case):
    find, variant, message = case
    with pytest.raises(ValueError, match=message):
        find(PeeledProblem(PAIRS, **variant))


@variants
def test_a_problem_becomes_its_twin_and_keeps_all_else(variant):
    problem = PeeledProblem(COUNTS, energy=(0.4, 0.9), **variant)
    twin = problem.as_decay()
    assert twin.weight_decay == equivalent_decay(problem)
    assert twin == PeeledProblem(COUNTS, weight_decay=twin.weight_decay, **variant)
    back = twin.as_energy()
    assert back == PeeledProblem(COUNTS, energy=back.energy, **variant)
    assert back.energy.product == pytest.approx(problem.energy.product, rel=1e-7)


def test_only_the_other_kind_has_a_twin():
    problem = PeeledProblem(COUNTS, energy=(0.4, 0.9))
    with pytest.raises(ValueError, match="it has budgets already"):
        problem.as_energy()
    with pytest.raises(ValueError, match="it has weight decay already"):
        problem.as_decay().as_decay()
