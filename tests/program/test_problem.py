import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program import Energy, PeeledProblem, Status
from tests.program.layer_peeled_reference import (
    budget,
    counts_of,
    lower_bound,
    mean_cosine,
    objective,
    solve_factors,
    solve_nuclear,
    solve_sdp,
)

# K_A, K_B, R, (E_W, E_H)
INTERIOR = {
    "equal sizes": (2, 2, 3.0, (1.0, 2.0)),
    "more minority": (2, 4, 5.0, (2.0, 1.0)),
    "more majority": (4, 2, 1.5, (1.0, 2.0)),
    "one majority class": (1, 3, 4.0, (1.0, 1.0)),
    "one minority class": (3, 1, 4.0, (1.0, 1.0)),
    "two classes": (1, 1, 6.0, (1.0, 1.0)),
}
BEYOND = {
    "beyond collapse": (2, 3, 40.0, (1.0, 1.0)),
    "beyond collapse, one majority class": (1, 3, 1e4, (1.0, 0.5)),
    "beyond vanishing": (4, 2, 30.0, (1.0, 1.0)),
}


def parametrize(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def solve(case):
    K_A, K_B, ratio, energy = case
    return PeeledProblem(counts_of(K_A, K_B, ratio), energy=energy).solve()


@parametrize(INTERIOR | BEYOND)
def test_agrees_with_the_semidefinite_program(case):
    K_A, K_B, ratio, energy = case
    value, gram = solve_sdp(counts_of(K_A, K_B, ratio), energy)
    solution = solve(case)
    K = K_A + K_B
    assert solution.status is Status.CERTIFIED
    assert solution.objective == pytest.approx(value, rel=1e-7)
    # The value is second order in the matrix: half the digits.
    tight = {"rtol": 0, "atol": 5e-4}
    np.testing.assert_allclose(solution.geometry.feature_gram, gram[:K, :K], **tight)
    np.testing.assert_allclose(solution.geometry.classifier_gram, gram[K:, K:], **tight)
    np.testing.assert_allclose(solution.logits, gram[K:, :K], **tight)


@parametrize(INTERIOR)
def test_agrees_with_the_nuclear_norm_program(case):
    K_A, K_B, ratio, energy = case
    value, logits = solve_nuclear(counts_of(K_A, K_B, ratio), energy)
    assert solve(case).objective == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(
        solve(case).logits, logits - logits.mean(axis=0), rtol=0, atol=5e-4
    )


@parametrize(
    {name: INTERIOR[name] for name in ("more minority", "more majority")}
    | {"beyond collapse": BEYOND["beyond collapse"]}
)
def test_no_random_start_over_the_factors_does_better(case):
    K_A, K_B, ratio, energy = case
    counts = counts_of(K_A, K_B, ratio)
    solution = solve(case)
    generator = np.random.default_rng(0)
    runs = [solve_factors(counts, energy, K_A + K_B, generator) for _ in range(4)]
    assert min(run[0] for run in runs) >= solution.objective * (1 - 1e-12)
    value, W, _ = min(runs, key=lambda run: run[0])
    assert value == pytest.approx(solution.objective, rel=1e-9)
    np.testing.assert_allclose(
        W @ W.T, solution.geometry.classifier_gram, rtol=0, atol=1e-4
    )


NAN = math.nan
PUBLISHED = {
    3: [-0.1111, -0.0903, -0.0558, -0.0202, 0.0300, 0.1422, 0.3107, 1, 1],
    5: [-0.1111, -0.0673, 0.0725, 0.5175, 1, 1, 1, 1, 1],
    7: [-0.1111, -0.0251, 1, NAN, NAN, NAN, NAN, NAN, NAN],
}


@pytest.mark.parametrize("majority", PUBLISHED)
def test_published_minority_cosines(majority):
    ratios = [1, 2, 5, 10, 20, 50, 100, 300, 1000]
    cosines = []
    for ratio in ratios:
        counts = counts_of(majority, 10 - majority, ratio)
        geometry = PeeledProblem(counts, energy=(1.0, 5.0)).solve().geometry
        cosines.append(geometry.block_cosine(list(range(majority, 10))))
    np.testing.assert_allclose(cosines, PUBLISHED[majority], rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("majority", "cosine"), [(3, -0.237), (5, -0.230), (7, -1 / 6)]
)
def test_published_majority_cosines_at_large_ratios(majority, cosine):
    counts = counts_of(majority, 10 - majority, 1e9)
    solution = PeeledProblem(counts, energy=(1.0, 5.0)).solve()
    block = solution.geometry.classifier_gram[:majority, :majority].numpy()
    assert mean_cosine(block) == pytest.approx(cosine, abs=5e-4)


@pytest.mark.parametrize("loss", ["cross-entropy", "mse", ""])
def test_unknown_loss_lists_the_losses(loss):
    with pytest.raises(ValueError, match="`loss` must be one of 'cross_entropy'; got"):
        PeeledProblem([1, 2], loss=loss, energy=(1, 1))


@pytest.mark.parametrize(
    ("counts", "energy", "message"),
    [
        ([1], (1, 1), "at least 2 classes"),
        ([1, 0], (1, 1), "above 0"),
        ([1, 2, 3], (1, 1), "got 3 distinct values"),
        ([1, 2], (0, 1), "energy"),
        ([1, 2], (1, math.inf), "energy"),
        ([1, 2], (1.7e308, 1.7e308), r"K \* sqrt"),
    ],
    ids=str,
)
def test_rejects_bad_input(counts, energy, message):
    with pytest.raises(ValueError, match=message):
        PeeledProblem(counts, energy=energy)


@pytest.mark.parametrize("gap_tol", [0.0, -1.0, math.nan])
def test_rejects_a_bad_tolerance(gap_tol):
    with pytest.raises(ValueError, match="`gap_tol` must be a finite number above 0"):
        PeeledProblem([1, 2], energy=(1, 1)).solve(gap_tol)


def test_a_tolerance_below_rounding_is_not_certified():
    problem = PeeledProblem([3.0, 3.0, 1.0, 1.0], energy=(20.0, 20.0))
    assert problem.solve().status is Status.CERTIFIED
    assert problem.solve(gap_tol=1e-300).certificate.gap > 1e-300
    assert problem.solve(gap_tol=1e-300).status is Status.STATIONARY


def test_is_a_value():
    problem = PeeledProblem(np.array([4, 4, 1]), energy=[1, 2])
    assert problem == PeeledProblem((4.0, 4.0, 1.0), energy=Energy(1.0, 2.0))
    assert hash(problem) == hash(PeeledProblem(torch.tensor([4, 4, 1]), energy=(1, 2)))
    assert (problem.num_classes, problem.loss) == (3, "cross_entropy")
    with pytest.raises(AttributeError):
        problem.loss = "mse"


def test_counts_equal_up_to_rounding_are_balanced():
    counts = [0.1 + 0.2, 0.3, 0.3]
    assert PeeledProblem(counts, energy=(1, 1)).solve().status is Status.CLOSED_FORM


def test_only_proportions_of_counts_matter():
    small = PeeledProblem([6e-9, 6e-9, 2e-9], energy=(1, 3)).solve()
    large = PeeledProblem([3e9, 3e9, 1e9], energy=(1, 3)).solve()
    assert small.objective == pytest.approx(large.objective, rel=1e-12)
    np.testing.assert_allclose(small.logits, large.logits, rtol=0, atol=1e-12)


def test_thousands_of_classes():
    counts = counts_of(1500, 1500, 10.0)
    solution = PeeledProblem(counts, energy=(10.0, 10.0)).solve()
    assert solution.certificate.gap < 1e-10
    assert objective(solution.logits, counts) == pytest.approx(
        solution.objective, rel=1e-10
    )


problems = st.tuples(
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0.01, math.log(1e12)).map(math.exp),
    st.tuples(
        st.floats(math.log(1e-6), math.log(50.0)).map(math.exp),
        st.floats(math.log(1e-6), math.log(50.0)).map(math.exp),
    ),
)
properties = settings(max_examples=20, deadline=None, derandomize=True)


@properties
@given(problems)
def test_bound_and_gap_hold_densely(case):
    K_A, K_B, ratio, energy = case
    counts = counts_of(K_A, K_B, ratio)
    solution = solve(case)
    certificate = solution.certificate
    assert certificate.lower_bound <= certificate.objective
    assert certificate.gap < 1e-10
    value = objective(solution.logits, counts)
    bound = lower_bound(solution.logits, counts, budget(K_A + K_B, energy))
    assert certificate.objective == pytest.approx(value, rel=1e-11)
    assert certificate.lower_bound == pytest.approx(bound, rel=1e-10)


@properties
@given(problems, st.randoms(use_true_random=False))
def test_permuting_classes_permutes_the_solution(case, random):
    K_A, K_B, ratio, energy = case
    counts = counts_of(K_A, K_B, ratio)
    order = list(range(K_A + K_B))
    random.shuffle(order)
    permuted = PeeledProblem([counts[k] for k in order], energy=energy).solve()
    solution = solve(case)
    assert torch.equal(permuted.logits, solution.logits[order][:, order])
    gram = solution.geometry.classifier_gram
    assert torch.equal(permuted.geometry.classifier_gram, gram[order][:, order])


@properties
@given(problems, st.floats(1e-3, 1e3))
def test_the_ratio_of_energies_only_rescales(case, factor):
    K_A, K_B, ratio, (E_W, E_H) = case
    shifted = solve((K_A, K_B, ratio, (E_W * factor, E_H / factor)))
    solution = solve(case)
    scale = float(solution.logits.abs().max())
    np.testing.assert_allclose(
        shifted.logits, solution.logits, rtol=0, atol=1e-9 * scale
    )
    assert shifted.objective == pytest.approx(solution.objective, rel=1e-9)
    norms = shifted.geometry.classifier_norms / solution.geometry.classifier_norms
    kept = solution.geometry.classifier_norms > 1e-3 * math.sqrt(E_W)
    np.testing.assert_allclose(norms[kept], math.sqrt(factor), rtol=1e-6)


@properties
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0.0, math.log(1e12)).map(math.exp),
    st.floats(math.log(1e-12), math.log(1e6)).map(math.exp),
)
def test_everything_is_finite_without_warnings(K_A, K_B, ratio, energy):
    solution = solve((K_A, K_B, ratio, (energy, energy)))
    geometry = solution.geometry
    for values in (geometry.logits, geometry.classifier_gram, geometry.feature_gram):
        assert values.isfinite().all()
    assert math.isfinite(solution.certificate.gap)
    assert 0 <= solution.certificate.lower_bound <= solution.objective
