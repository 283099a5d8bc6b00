import math
import pickle
import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from layerpeel.program import MSE, CrossEntropy, Decay, Energy, PeeledProblem, Status
from layerpeel.program.class_level import SoftmaxLoss
from tests.program import reference
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


NAN, INF = math.nan, math.inf
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


E = {"energy": (1, 1)}
BAD = {
    "one class": ([1], E, "at least 2 classes; got 1"),
    "no class": ([], E, "at least 2 classes; got 0"),
    "zero count": ([1, 0], E, "above 0; got class 1: 0"),
    "negative count": ([1, -2], E, "above 0; got class 1: -2"),
    "count is nan": ([NAN, 1], E, "above 0; got class 0: nan"),
    "infinite count": ([1, INF], E, "above 0; got class 1: inf"),
    "zero energy": ([1, 2], {"energy": (0, 1)}, "`energy.classifiers` .* above 0"),
    "negative energy": ([1, 2], {"energy": (1, -1)}, "`energy.features` .* above 0"),
    "energy is nan": ([1, 2], {"energy": (NAN, 1)}, "`energy.classifiers` .* got nan"),
    "infinite energy": ([1, 2], {"energy": (1, INF)}, "`energy.features` .* got inf"),
    "one energy": ([1, 2], {"energy": (1,)}, r"`energy` must .* pair \(E_W, E_H\)"),
    "overflowing energy": ([1, 2], {"energy": (1.7e308, 1.7e308)}, r"K \* sqrt"),
    "zero decay": (
        [1, 2],
        {"weight_decay": (0, 1)},
        r"`weight_decay.layers\[0\]` .* above 0",
    ),
    "negative decay": (
        [1, 2],
        {"weight_decay": (1, -1)},
        "`weight_decay.features` .* above 0",
    ),
    "decay is nan": ([1, 2], {"weight_decay": (1, NAN, 1)}, r"layers\[1\]` .* got nan"),
    "infinite decay": ([1, 2], {"weight_decay": (1, INF)}, "above 0; got inf"),
    "one decay": ([1, 2], {"weight_decay": (1,)}, "at least two decays"),
    "both": (
        [1, 2],
        E | {"weight_decay": (1, 1)},
        "Exactly one of `energy` .* and `weight_decay` .* got both",
    ),
    "neither": ([1, 2], {}, "Exactly one of `energy` .* got neither"),
    "three class weights": ([1, 2], E | {"class_weights": (1, 1, 1)}, "got 3"),
    "no class weights": ([1, 2], E | {"class_weights": ()}, "`class_weights` .* got 0"),
    "zero class weight": (
        [1, 2],
        E | {"class_weights": (1, 0)},
        r"`class_weights\[1\]` must .* above 0",
    ),
    "class weight is nan": ([1, 2], E | {"class_weights": (NAN, 1)}, "got nan"),
    "scales": (
        [1, 2],
        E | {"loss": CrossEntropy(scale=(1, 1, 1))},
        "`loss.scale` must have one number for each of the 2 classes; got 3",
    ),
    "offsets": (
        [1, 2],
        E | {"loss": CrossEntropy(offset=(1,))},
        "`loss.offset` must have one number for each of the 2 classes; got 1",
    ),
    "margins": (
        [1, 2],
        E | {"loss": CrossEntropy(margin=())},
        "`loss.margin` must have one number for each of the 2 classes; got 0",
    ),
    "bias word": ([1, 2], E | {"bias": "fre"}, '`bias` must be None, "free", or'),
    "bias truth": ([1, 2], E | {"bias": True}, '`bias` must be None, "free", or'),
    "bias zero": ([1, 2], E | {"bias": 0}, "`bias` must be a finite number above 0"),
    "bias negative": ([1, 2], E | {"bias": -0.1}, "`bias` must be .* above 0"),
    "bias nan": ([1, 2], E | {"bias": NAN}, "`bias` must be .* got nan"),
    "features": (
        [1, 2],
        E | {"features": "nonegative"},
        "`features` must be one of .* Did you mean 'nonnegative'?",
    ),
    "width": ([1, 2], E | {"width": 0}, "`width` must be an integer >= 1; got 0"),
    "loss": (
        [1, 2],
        E | {"loss": "cross-entropy"},
        "`loss` must be one of 'cross_entropy', 'mse'; .* mean 'cross_entropy'?",
    ),
    "loss abbreviated": ([1, 2], E | {"loss": "mae"}, "Did you mean 'mse'?"),
    "no loss": ([1, 2], E | {"loss": ""}, "`loss` must be one of .* got ''"),
}


@pytest.mark.parametrize("name", BAD)
def test_rejects_bad_input(name):
    counts, keywords, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        PeeledProblem(counts, **keywords)


def test_a_class_in_place_of_a_loss_is_no_loss():
    """Without the type checks of the tests, which would see it first."""
    code = """
from layerpeel.program import CrossEntropy, PeeledProblem
try:
    PeeledProblem([1, 2], loss=CrossEntropy, energy=(1, 1))
except ValueError as error:
    assert "`loss` must be a `CrossEntropy(...)`" in str(error), error
else:
    raise AssertionError("accepted")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must be an integer >= 1; got 0"),
        ({"method": "group"}, "`method` must be one of .* mean 'grouped'"),
        (
            {"method": "closed_form"},
            "`method='closed_form'` does not apply .* 'auto', 'grouped', 'spectral', "
            "'factored'",
        ),
    ],
    ids=str,
)
def test_rejects_a_bad_request(keywords, message):
    with pytest.raises(ValueError, match=message):
        PeeledProblem([1, 2], energy=(1, 1)).solve(**keywords)


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
    assert (problem.num_classes, problem.loss) == (3, CrossEntropy())
    assert PeeledProblem([1, 2], loss="mse", weight_decay=(1, 2, 3)) == PeeledProblem(
        [1, 2], loss=MSE(), weight_decay=Decay(1, 2, features=3)
    )
    with pytest.raises(AttributeError):
        problem.loss = MSE()


def test_depth_is_the_number_of_layers():
    assert PeeledProblem([1, 2], energy=(1, 1)).depth == 1
    assert PeeledProblem([1, 2], weight_decay=(1, 1, 1)).depth == 2


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


# Extremes ---------------------------------------------------------------------------


EXTREME = [[1e12] * 2 + [1e6] + [1.0] * 3, [100.0] * 2 + [10.0] + [1.0] * 3]
ENERGIES = [(1e-12, 1e-12), (1e-12, 1e6), (1.0, 1.0), (1e6, 1e6)]


def log_of_objective(program, logits, bias):
    """The log of plain cross-entropy, where the loss itself underflows."""
    z = np.asarray(logits) + np.asarray(bias)[:, None]
    gaps = np.where(np.eye(len(z), dtype=bool), -np.inf, z - np.diag(z))
    rest = logsumexp(gaps, axis=0)
    losses = np.where(rest < -40, rest, np.log(np.logaddexp(0, np.maximum(rest, -40))))
    return logsumexp(losses, b=program.weights.numpy())


@pytest.mark.parametrize("bias", [None, "free"])
@pytest.mark.parametrize("energy", ENERGIES, ids=str)
@pytest.mark.parametrize("counts", EXTREME, ids=["R = 1e12", "R = 100"])
def test_three_groups_at_extremes_have_a_status_and_a_finite_log(counts, energy, bias):
    problem = PeeledProblem(counts, energy=energy, bias=bias)
    solution = problem.solve()
    assert solution.status in {Status.CERTIFIED, Status.STATIONARY}
    assert (solution.certificate.gap <= 1e-8) is solution.status.success
    assert solution.certificate.lower_bound <= solution.objective
    log_objective = solution.stats["log_objective"]
    expected = log_of_objective(problem.class_level(), solution.logits, solution.bias)
    # Of logits near 1e6, every bit counts.
    assert log_objective == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if bias is None or energy[1] < 1e6:
        assert solution.status is Status.CERTIFIED


@pytest.mark.parametrize("counts", [[1e12] * 2 + [1.0] * 3, [9.0] * 3 + [4.0] * 2])
@pytest.mark.parametrize("energy", [*ENERGIES, (50.0, 50.0)], ids=str)
def test_the_general_gap_is_honest_where_two_groups_know_the_optimum(counts, energy):
    problem = PeeledProblem(counts, energy=energy)
    exact, general = problem.solve(1e-12), problem.solve(method="spectral")
    assert exact.status is Status.CERTIFIED
    excess = general.stats["log_objective"] - exact.stats["log_objective"]
    rounding = 1e-12 * max(1.0, abs(exact.stats["log_objective"]))
    assert -rounding <= excess <= -math.log1p(-general.certificate.gap) + rounding


@pytest.mark.parametrize("energy", ENERGIES, ids=str)
def test_nonnegative_features_at_extremes(energy):
    problem = PeeledProblem(EXTREME[0], energy=energy, features="nonnegative")
    solution = problem.solve()
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-6
    assert solution.class_means().min() >= 0
    expected = log_of_objective(problem.class_level(), solution.logits, solution.bias)
    assert solution.stats["log_objective"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("decay", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_decays_at_extremes_are_solved(decay, loss):
    problem = PeeledProblem([1e12, 1e6, 1.0], loss=loss, weight_decay=(decay, decay))
    program, solution = problem.class_level(), problem.solve()
    assert solution.status.success
    value = reference.objective(program, solution.logits)
    assert solution.objective == pytest.approx(value, rel=1e-9, abs=0)
    nothing = reference.objective(program, np.zeros((3, 3)))
    assert solution.objective <= nothing * (1 + 1e-12)


def test_counts_equal_up_to_rounding_have_the_balanced_solution():
    rounded = PeeledProblem([0.1 + 0.2, 0.3, 0.3], energy=(1, 1)).solve()
    balanced = PeeledProblem([3, 3, 3], energy=(1, 1)).solve()
    assert torch.equal(rounded.logits, balanced.logits)


@pytest.mark.parametrize("weights", [(1, 2, 4), (1 / 3, 1 / 7, 1 / 11)], ids=str)
def test_weights_that_cancel_the_counts_balance_the_budget(weights):
    counts = [1 / weight for weight in weights]
    weighted = PeeledProblem(counts, energy=(1, 2), class_weights=weights).solve()
    balanced = PeeledProblem([1, 1, 1], energy=(1, 2)).solve()
    assert weighted.status.success
    np.testing.assert_allclose(weighted.logits, balanced.logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize(
    "keywords",
    [{"energy": (1, 2)}, {"weight_decay": (1e-3, 1e-3), "bias": "free"}],
    ids=str,
)
def test_a_width_below_the_rank_gives_factors_of_that_width_and_a_bound(
    keywords, width
):
    counts = [5, 3, 2, 1]
    problem = PeeledProblem(counts, width=width, **keywords)
    solution, program = problem.solve(), problem.class_level()
    wide, _, _ = reference.cvxpy_solve(program)
    assert solution.status is Status.STATIONARY
    assert solution.classifiers(width).shape == (4, width)
    assert solution.class_means(width).shape == (4, width)
    assert solution.certificate.lower_bound <= wide * (1 + 1e-7) < solution.objective
    assert solution.certificate.gap > 1e-8
    value = reference.objective(program, solution.logits, solution.bias)
    assert solution.objective == pytest.approx(value, rel=1e-10)
    with pytest.raises(ValueError, match="`width` must be at least"):
        solution.classifiers(0)


def test_a_tolerance_below_rounding_is_stationary_in_general():
    problem = PeeledProblem([5, 3, 2, 1], energy=(2, 2), bias="free")
    solution = problem.solve(gap_tol=1e-300)
    assert solution.status is Status.STATIONARY
    assert not solution.status.success
    assert 1e-300 < solution.certificate.gap < 1e-8


@pytest.mark.parametrize("bias", [None, "free", 0.1])
def test_a_solve_that_stops_early_returns_its_bounds(bias):
    problem = PeeledProblem([5, 3, 2, 1], energy=(2, 2), bias=bias)
    early = problem.solve(max_steps=1)
    optimum, _, _ = reference.cvxpy_solve(problem.class_level())
    assert early.status is Status.MAX_STEPS
    assert not early.status.success
    assert early.stats["steps"] == 1
    assert 0 < early.certificate.lower_bound < optimum < early.objective
    value = reference.objective(problem.class_level(), early.logits, early.bias)
    assert early.objective == pytest.approx(value, rel=1e-10)


def test_success_means_proved():
    assert [status.name for status in Status if status.success] == [
        "CLOSED_FORM",
        "CERTIFIED",
    ]
    assert not PeeledProblem([3, 2], weight_decay=(0.1,) * 3).solve().status.success


# Against torch ----------------------------------------------------------------------

MIXED = {
    "plain": (None, 0.0),
    "class weights": ((0.5, 2.0, 3.0), 0.0),
    "smoothing": (None, 0.2),
    "class weights and smoothing": ((0.5, 2.0, 3.0), 0.2),
}
HELD = {
    "energy": {"energy": (1.0, 2.0)},
    "energy per sample": {"energy": Energy(1.0, 2.0, "sample"), "bias": "free"},
    "decay per sample": {"weight_decay": (2e-2, 1e-2), "bias": 0.1},
    "decay per class": {"weight_decay": Decay(2e-2, features=1e-2, per="class")},
    "nonnegative": {"weight_decay": (2e-2, 1e-2), "features": "nonnegative"},
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("mixed", MIXED)
def test_the_objective_is_that_of_torch_on_all_samples(mixed, held):
    weights, smoothing = MIXED[mixed]
    counts = torch.tensor([6, 3, 1])
    problem = PeeledProblem(
        counts,
        loss=CrossEntropy(smoothing=smoothing),
        class_weights=weights,
        **HELD[held],
    )
    solution = problem.solve()
    W, labels = solution.classifiers(), torch.arange(3).repeat_interleave(counts)
    features = solution.class_means()[labels]  # (N, p)
    loss = torch.nn.functional.cross_entropy(
        features @ W.T + solution.bias,
        labels,
        weight=None if weights is None else torch.tensor(weights).double(),
        label_smoothing=smoothing,
    )
    shared = features.square().sum(1)
    if problem.weight_decay is None:
        norms = [W.square().sum(1).mean(), shared.mean()]
        if problem.energy.per == "class":
            norms[1] = solution.class_means().square().sum(1).mean()
        assert all(
            norm <= E * (1 + 1e-9) for norm, E in zip(norms, (1, 2), strict=True)
        )
    else:
        if problem.weight_decay.per == "class":
            shared = shared / counts[labels]
        loss = loss + 2e-2 / 2 * W.square().sum() + 1e-2 / 2 * shared.sum()
        if isinstance(problem.bias, float):
            loss = loss + problem.bias / 2 * solution.bias.square().sum()
    assert solution.objective == pytest.approx(float(loss), rel=1e-9)


# Against a general convex solver, and numpy -----------------------------------------

TAIL = [9.0, 5.0, 2.0, 1.0]
GROUPS = [9.0, 5.0, 5.0, 1.0]
PER_CLASS = CrossEntropy(
    scale=(1, 1.5, 2, 1), offset=(0.5, 0, -1, 0), margin=(1, 1, 2, 3)
)
DECAY = {"weight_decay": (2e-2, 1e-2)}
CONVEX = {
    "two groups": ([9.0, 9.0, 2.0], {"energy": (1, 2)}),
    "three groups": (GROUPS, {"energy": (1, 2)}),
    "three groups, decay": (GROUPS, DECAY),
    "distinct, free bias": (TAIL, {"energy": (1, 2), "bias": "free"}),
    "distinct, ridge": (TAIL, DECAY | {"bias": 0.05}),
    "smoothing": (TAIL, DECAY | {"loss": CrossEntropy(smoothing=0.1)}),
    "smoothing, weights": (
        GROUPS,
        {
            "energy": (1, 2),
            "loss": CrossEntropy(smoothing=0.1),
            "class_weights": (1, 2, 2, 5),
            "bias": "free",
        },
    ),
    "scale, offset, margin": (TAIL, {"energy": (1, 2), "loss": PER_CLASS}),
    "scale, offset, margin, free bias": (
        TAIL,
        DECAY | {"loss": PER_CLASS, "bias": "free"},
    ),
    "balanced, all alike": (
        [2.0] * 3,
        {
            "energy": (1, 2),
            "loss": CrossEntropy(0.1, (2,) * 3, (1,) * 3, (3,) * 3),
        },
    ),
    "squared error, ridge": (TAIL, DECAY | {"loss": "mse", "bias": 0.05}),
    "squared error, budget, ridge": (
        TAIL,
        {"energy": (0.2, 0.2), "loss": "mse", "bias": 0.05},
    ),
    "energy per sample": (TAIL, {"energy": Energy(1.0, 2.0, "sample")}),
}
OTHERS = {
    "deep": (TAIL, {"weight_decay": (1e-3, 1e-3, 1e-3)}),
    "deep, squared error": (TAIL, {"weight_decay": (1e-3,) * 3, "loss": "mse"}),
    "nonnegative": (TAIL, DECAY | {"features": "nonnegative"}),
    "nonnegative, free bias": (
        TAIL,
        DECAY | {"features": "nonnegative", "bias": "free"},
    ),
    "nonnegative, squared error": (
        TAIL,
        {"energy": (0.2, 0.2), "features": "nonnegative", "loss": "mse"},
    ),
}


@pytest.mark.parametrize("name", CONVEX)
def test_agrees_with_an_interior_point_solver(name):
    counts, keywords = CONVEX[name]
    problem = PeeledProblem(counts, **keywords)
    solution = problem.solve()
    value, logits, bias = reference.cvxpy_solve(problem.class_level())
    assert solution.status.success
    assert solution.certificate.gap <= 1e-8
    assert solution.objective == pytest.approx(value, rel=1e-6, abs=1e-8)
    assert solution.certificate.lower_bound <= value * (1 + 1e-7) + 1e-8
    np.testing.assert_allclose(
        seen(problem.class_level(), solution.logits, solution.bias),
        seen(problem.class_level(), logits, bias),
        rtol=0,
        atol=2e-3,
    )


def seen(program, logits, bias):
    """What the loss sees, without a shift of all classes if it does not see that."""
    full = np.asarray(logits) + np.asarray(bias)[:, None]
    if not isinstance(program.loss, SoftmaxLoss):
        return full
    full = program.loss.scale.numpy()[:, None] * full / program.loss.margin.numpy()
    return full - full.mean(axis=0)


@pytest.mark.parametrize("name", CONVEX | OTHERS)
def test_the_objective_is_that_of_numpy(name):
    counts, keywords = (CONVEX | OTHERS)[name]
    problem = PeeledProblem(counts, **keywords)
    program, solution = problem.class_level(), problem.solve()
    logits, bias = solution.logits, solution.bias
    value = reference.objective(program, logits, bias)
    if program.nonnegative:
        value = reference.data_term(program, logits, bias)
        if program.regulariser.budget is None:
            factors = solution.classifiers(), solution.class_means()
            value += reference.factor_penalty(program, *factors)
    assert solution.objective == pytest.approx(value, rel=1e-9)
    if program.regulariser.budget is not None:
        spent = reference.nuclear_norm(program, logits)
        assert spent <= program.regulariser.budget * (1 + 1e-9)


# Symmetries of every variant --------------------------------------------------------


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.permutations(range(4)),
    st.sampled_from([None, "free", 0.1]),
    st.sampled_from([{"energy": (1, 2)}, {"weight_decay": (1e-2, 1e-2)}]),
    st.sampled_from([CrossEntropy(smoothing=0.1), CrossEntropy(), MSE()]),
)
def test_variants_are_permuted_with_their_classes(order, bias, held, loss):
    weights = (1.0, 2.0, 1.5, 3.0)
    keywords = {"bias": bias, "loss": loss} | held
    first = PeeledProblem(TAIL, class_weights=weights, **keywords).solve(1e-10)
    moved = PeeledProblem(
        [TAIL[k] for k in order],
        class_weights=[weights[k] for k in order],
        **keywords,
    ).solve(1e-10)
    assert moved.objective == pytest.approx(first.objective, rel=1e-9)
    order = list(order)
    close = {"rtol": 0, "atol": 2e-4}
    np.testing.assert_allclose(moved.logits, first.logits[order][:, order], **close)
    np.testing.assert_allclose(moved.bias, first.bias[order], **close)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.floats(-6, 6).map(math.exp), st.sampled_from(["free", "nonnegative"]))
def test_only_the_product_of_energies_decides_the_logits(factor, features):
    def solve(E_W, E_H):
        return PeeledProblem(TAIL, energy=(E_W, E_H), features=features).solve()

    first, second = solve(1.0, 2.0), solve(factor, 2.0 / factor)
    np.testing.assert_allclose(second.logits, first.logits, rtol=0, atol=1e-4)
    assert second.objective == pytest.approx(first.objective, rel=1e-7)
    norms = second.geometry.classifier_norms / first.geometry.classifier_norms
    kept = first.geometry.classifier_norms > 0.1
    np.testing.assert_allclose(norms[kept], math.sqrt(factor), rtol=1e-3)


# From a network ---------------------------------------------------------------------

NETWORK = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(3, 5, generator=NETWORK) + 1.0
MEANS = torch.randn(3, 5, generator=NETWORK) - 2.0
SAMPLES = [6, 3, 1]


@pytest.mark.parametrize("per", ["class", "sample"])
@pytest.mark.parametrize("centring", ["sample", "class", "none"])
def test_energies_of_a_network_are_those_of_its_samples(centring, per):
    problem = PeeledProblem.from_network(
        SAMPLES, WEIGHT, MEANS, centring=centring, per=per, bias="free"
    )
    rows, means = WEIGHT.double().numpy(), MEANS.double().numpy()
    features = np.repeat(means, SAMPLES, axis=0)
    middle = {"sample": features.mean(0), "class": means.mean(0), "none": 0.0}[centring]
    if centring != "none":
        rows = rows - rows.mean(axis=0)
    measured = (features if per == "sample" else means) - middle
    assert problem.energy.per == per
    assert problem.bias == "free"
    assert problem.energy.classifiers == pytest.approx((rows**2).sum(1).mean())
    assert problem.energy.features == pytest.approx((measured**2).sum(1).mean())


def test_an_exact_optimum_reads_its_energies_back():
    solution = PeeledProblem(SAMPLES, energy=(2, 3)).solve()
    factors = solution.classifiers(), solution.class_means()
    again = PeeledProblem.from_network(SAMPLES, *factors, centring="none")
    assert again.energy.classifiers == pytest.approx(2, rel=1e-9)
    assert again.energy.features == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "weight", "means", "keywords", "message"),
    [
        ([6, 3], WEIGHT, MEANS, {}, r"shape \(K, p\) with K = 2; got \(3, 5\)"),
        (SAMPLES, WEIGHT, 0 * MEANS, {}, "`energy.features` .* above 0; got 0"),
        (SAMPLES, NAN * WEIGHT, MEANS, {}, "`energy.classifiers` .* got nan"),
        (SAMPLES, WEIGHT, MEANS, {"centring": "samples"}, "mean 'sample'"),
        (SAMPLES, WEIGHT, MEANS, {"per": "classes"}, "mean 'class'"),
        ([6, 3, 0], WEIGHT, MEANS, {}, "class 2: 0"),
    ],
    ids=range(6),
)
def test_a_bad_network_is_refused(counts, weight, means, keywords, message):
    with pytest.raises(ValueError, match=message):
        PeeledProblem.from_network(counts, weight, means, **keywords)


# Pickling ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two groups", "distinct, ridge", "squared error"])
def test_solutions_and_problems_survive_pickling(name):
    cases = CONVEX | {"squared error": OTHERS["nonnegative, squared error"]}
    counts, keywords = cases[name]
    problem = PeeledProblem(counts, **keywords)
    solution = problem.solve()
    assert pickle.loads(pickle.dumps(problem)) == problem  # noqa: S301
    copy = pickle.loads(pickle.dumps(solution))  # noqa: S301
    assert (copy.status, copy.certificate) == (solution.status, solution.certificate)
    assert copy.stats == solution.stats
    assert torch.equal(copy.logits, solution.logits)
    assert torch.equal(copy.bias, solution.bias)


def test_a_loss_below_all_floats_is_not_called_non_finite():
    problem = PeeledProblem(
        [500] * 3 + [10] * 2, energy=(1e6, 1e6), features="nonnegative", bias="free"
    )
    solution = problem.solve(max_steps=50)
    assert solution.status in {Status.STATIONARY, Status.MAX_STEPS}
    assert solution.certificate.gap == 1.0
    assert bool(solution.logits.isfinite().all())


@pytest.mark.parametrize("counts", [[500] * 5 + [10] * 5, [7, 7, 7, 2]], ids=str)
def test_no_gap_is_claimed_that_the_factors_do_not_attain(counts):
    solution = PeeledProblem(counts, energy=(1, 5)).solve(gap_tol=1e-25)
    assert solution.status is Status.STATIONARY
    logits = solution.classifiers() @ solution.class_means().T
    with mp.workdps(40):
        losses = [
            mp.log(mp.fsum(mp.exp(mp.mpf(float(x)) - float(z[k])) for x in z))
            for k, z in enumerate(logits.T)
        ]
        value = mp.fsum(n * x for n, x in zip(counts, losses, strict=True))
        missed = abs(value / sum(counts) / solution.objective - 1)
    # Products of the factors round as well, in a direction of slope one.
    assert 0 < missed < 10 * solution.certificate.gap


@pytest.mark.parametrize(
    "options",
    [
        {"class_counts": [1e300, 1e300, 1e-300]},
        {"class_counts": [1.0, 1e-150, 3.0]},
        {"class_counts": [5, 6], "class_weights": [1e-300, 1e300]},
    ],
    ids=str,
)
def test_a_class_without_a_share_of_the_loss_is_refused(options):
    with pytest.raises(
        ValueError, match="a share of the loss of at least 1e-100; those"
    ):
        PeeledProblem(**options, energy=(1, 5))


@pytest.mark.parametrize("bias", [None, "free", 0.1])
@pytest.mark.parametrize("counts", [[1e98, 1e98, 1], [1e49, 1, 1e-49]], ids=str)
def test_the_rarest_classes_that_are_taken_raise_nothing(counts, bias):
    solution = PeeledProblem(counts, energy=(1, 5), bias=bias).solve(max_steps=20)
    assert (
        0 < solution.certificate.lower_bound <= solution.objective or bias is not None
    )
    assert solution.objective > 0


def test_the_size_of_class_weights_does_not_matter():
    weights = np.array([1.0, 2.0, 1.5])
    few, many = (
        PeeledProblem([5, 3, 2], energy=(1, 5), class_weights=scale * weights).solve()
        for scale in (1.0, 8e307)
    )
    torch.testing.assert_close(few.logits, many.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "kind", [np.asarray, lambda x: x.tolist(), lambda x: x.float()]
)
def test_the_network_may_be_arrays_lists_or_parameters(kind):
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    expected = PeeledProblem.from_network([9, 5, 2], weight, 2 * weight)
    found = PeeledProblem.from_network([9, 5, 2], kind(weight), kind(2 * weight))
    assert found == expected
    trained = PeeledProblem.from_network([9, 5, 2], weight.requires_grad_(), 2 * weight)
    assert trained == expected
