import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.closed import (
    nonnegative_collapse_threshold,
    solve_nonnegative,
)
from layerpeel.program.solution import Status
from tests.program.closed.programs import GAP_TOL, check, solve_factors
from tests.program.reference import make_program

COUNTS = [9.0, 4.0, 2.0, 1.0]
CASES = {
    "decay per sample": {"decay": (4e-3, 6e-3)},
    "two collapsed": {"decay": (9e-2, 9e-2)},
    "decay per class": {"decay": (5e-2, 2e-2), "per": "class"},
    "class weights": {"decay": (7e-3, 8e-3), "class_weights": [1.0, 2.0, 3.0, 4.0]},
    "margins": {"decay": (6e-3, 5e-3), "margin": [1.0, 2.0, 0.5, 1.0]},
    "smoothing": {"decay": (4e-3, 6e-3), "smoothing": 0.1},
    "budget": {"energy": (1.0, 0.7)},
    "budget, smoothed and scaled": {
        "energy": (0.8, 0.8),
        "smoothing": 0.05,
        "scale": 1.5,
    },
    "budget that smoothing leaves unspent": {"energy": (7.0, 7.0), "smoothing": 0.3},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_factors_are_better(case):
    # Most starts end in a worse local minimum; one of these reaches the global one.
    program = make_program(COUNTS, nonnegative=True, **case)
    solution = solve_nonnegative(program, GAP_TOL)
    check(program, solution)
    assert solution.status is Status.CLOSED_FORM
    assert solution.certificate.gap < 1e-13
    value, logits, _ = solve_factors(program, starts=12, seed=1)
    assert value == pytest.approx(solution.objective, rel=1e-8)
    assert value >= solution.certificate.lower_bound * (1 - 1e-12)
    # The loss, and an unspent budget, leave a constant per column free.
    np.testing.assert_allclose(solution.logits, logits - logits.mean(0), atol=2e-3)


@pytest.mark.parametrize("seed", range(8))
def test_random_starts_never_beat_it(seed):
    generator = np.random.default_rng(seed)
    K = int(generator.integers(2, 6))
    counts = np.exp(generator.uniform(0, 3, K))
    decay = np.exp(generator.uniform(-4, -1, 2)) / counts.sum()
    program = make_program(counts, decay=decay, nonnegative=True)
    value, _, _ = solve_factors(program, starts=4, seed=seed)
    solution = solve_nonnegative(program, GAP_TOL)
    assert solution.certificate.gap < 1e-13
    assert value >= solution.objective * (1 - 1e-10)


@pytest.mark.parametrize("bias", ["free", 0.2])
def test_bias_of_equal_classes_is_zero(bias):
    program = make_program([3.0] * 3, decay=(0.01, 0.02), nonnegative=True, bias=bias)
    solution = solve_nonnegative(program, GAP_TOL)
    check(program, solution)
    value, _, found = solve_factors(program, starts=8)
    assert value == pytest.approx(solution.objective, rel=1e-9)
    assert (solution.bias == 0).all()
    np.testing.assert_allclose(found - found.mean(), 0, atol=1e-4)


def test_published_norms_and_gaps():
    n, lam_W, lam_H = np.array([60.0, 25.0, 10.0]), 2e-3, 1e-3
    solution = solve_nonnegative(
        make_program(n, decay=(lam_W, lam_H), nonnegative=True), GAP_TOL
    )
    q = n.sum() * np.sqrt(lam_W * lam_H * 2 / (3 * n))
    gaps = np.log(2 * (1 / q - 1))
    expected = gaps * np.sqrt(lam_W * 2 / (3 * n * lam_H))
    H = solution.class_means()
    np.testing.assert_allclose(H @ H.T, np.diag(expected), rtol=1e-12, atol=1e-14)
    centred = np.eye(3) - 1 / 3
    np.testing.assert_allclose(solution.logits, centred * gaps, rtol=1e-12)


@pytest.mark.parametrize("factor", [0.98, 1.0, 1.02])
def test_class_collapses_at_its_count(factor):
    # n <= N^2 lam_W lam_H K / (K - 1), with N fixed.
    K, total, product = 4, 100.0, 1e-3
    threshold = total**2 * product * K / (K - 1)
    rare = threshold * factor
    rest = (total - rare) / (K - 1)
    decay = (math.sqrt(product), math.sqrt(product))
    program = make_program([rest] * 3 + [rare], decay=decay, nonnegative=True)
    norms = solve_nonnegative(program, GAP_TOL).geometry.feature_norms
    assert norms[:3].min() > 0
    if factor != 1.0:
        assert (norms[3] == 0) == (factor < 1)


@pytest.mark.parametrize(
    ("majority", "published"), [(3, 259), (5, 12.05), (7, 3.80)], ids=str
)
def test_published_thresholds(majority, published):
    value = nonnegative_collapse_threshold(
        majority=majority, minority=10 - majority, energy=(1.0, 5.0)
    )
    assert value == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize(
    ("majority", "minority"), [(1, 1), (1, 4), (3, 7), (9, 1), (40, 60)]
)
@pytest.mark.parametrize("energy", [1e-6, 0.1, 2.0])
def test_minority_features_vanish_at_the_threshold(majority, minority, energy):
    sizes = {"majority": majority, "minority": minority}
    threshold = nonnegative_collapse_threshold(**sizes, energy=(1.0, energy))

    def features(factor):
        ratio = 1 + (threshold - 1) * factor
        program = make_program(
            [ratio] * majority + [1.0] * minority,
            energy=(1.0, energy),
            nonnegative=True,
        )
        return solve_nonnegative(program, GAP_TOL)

    vanished, alive = features(1.02), features(0.98)
    assert (vanished.class_means()[majority:] == 0).all()
    assert vanished.stats["collapsed"] == minority
    classifiers = vanished.classifiers()[majority:]
    assert (classifiers == classifiers[0]).all()
    assert classifiers[0].norm() > 0
    assert alive.geometry.feature_norms.min() > 0


@given(
    majority=st.integers(1, 50),
    minority=st.integers(1, 50),
    first=st.floats(-30, 12),
    second=st.floats(-30, 12),
)
def test_threshold_grows_with_the_energy(majority, minority, first, second):
    low, high = (
        nonnegative_collapse_threshold(
            majority=majority,
            minority=minority,
            energy=(math.exp(log_energy), 1.0),
            log=True,
        )
        for log_energy in sorted((first, second))
    )
    assert 0 < low <= high


def test_threshold_in_logarithms():
    sizes = {"majority": 4, "minority": 6}
    for energy in (1e-9, 0.1, 3.0, 50.0):
        value = nonnegative_collapse_threshold(**sizes, energy=(1.0, energy))
        log_value = nonnegative_collapse_threshold(
            **sizes, energy=(energy, 1.0), log=True
        )
        assert log_value == pytest.approx(math.log(value), rel=1e-6)
    tiny = nonnegative_collapse_threshold(**sizes, energy=(1e-20, 1.0), log=True)
    assert tiny == pytest.approx(1e-10 / 4 * math.sqrt(10 / 9), rel=1e-9)
    huge = {"energy": (1e6, 1e6)} | sizes
    assert nonnegative_collapse_threshold(**huge) == math.inf
    exponent = 1e6 * 10 / 4 * math.sqrt(10 / 9) - math.log(10)
    assert nonnegative_collapse_threshold(**huge, log=True) == pytest.approx(exponent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"majority": 0}, "`majority` must be an integer >= 1"),
        ({"minority": 0}, "`minority` must be an integer >= 1"),
        ({"energy": (1.0, -1.0)}, r"energy\.features"),
    ],
    ids=str,
)
def test_threshold_rejects_bad_input(change, message):
    arguments = {"majority": 3, "minority": 3, "energy": (1.0, 1.0)} | change
    with pytest.raises(ValueError, match=message):
        nonnegative_collapse_threshold(**arguments)


def test_width_may_be_the_number_of_classes_left():
    case = {"decay": (9e-2, 9e-2), "nonnegative": True}
    solution = solve_nonnegative(make_program(COUNTS, width=2, **case), GAP_TOL)
    assert solution.stats["collapsed"] == 2
    assert solution.classifiers().count_nonzero(dim=0).count_nonzero() == 2
    with pytest.raises(ValueError, match="width of at least 2; got 1"):
        solve_nonnegative(make_program(COUNTS, width=1, **case), GAP_TOL)


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e12], ids=str)
@pytest.mark.parametrize("energy", [1e-12, 1.0, 1e6], ids=str)
def test_extreme_counts_and_energies(ratio, energy):
    counts = np.geomspace(ratio, 1.0, 12)
    program = make_program(counts, energy=(energy, energy), nonnegative=True)
    solution = solve_nonnegative(program, GAP_TOL)
    assert solution.certificate.gap < 1e-9
    assert math.isfinite(solution.stats["log_objective"])
    W, H = solution.classifiers(), solution.class_means()
    assert float(W.square().mean(0).sum()) <= energy * (1 + 1e-12)
    assert float(H.square().mean(0).sum()) <= energy * (1 + 1e-12)


@given(
    log_counts=st.lists(st.floats(0, 6), min_size=2, max_size=6),
    log_energy=st.floats(-6, 4),
    log_ratio=st.floats(-4, 4),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_equivariance_and_invariance(log_counts, log_energy, log_ratio, seed):
    def logits(counts, ratio):
        energy = math.exp(log_energy + ratio), math.exp(log_energy - ratio)
        program = make_program(counts, energy=energy, nonnegative=True)
        solution = solve_nonnegative(program, GAP_TOL)
        assert 0 <= solution.certificate.gap < 1e-11
        return solution.logits.numpy()

    counts = np.exp(log_counts)
    first = logits(counts, 0.0)
    order = np.random.default_rng(seed).permutation(len(counts))
    tolerance = {"rtol": 1e-9, "atol": 1e-9 * np.abs(first).max()}
    np.testing.assert_allclose(
        logits(counts[order], 0.0), first[order][:, order], **tolerance
    )
    np.testing.assert_allclose(logits(counts, log_ratio), first, **tolerance)
    np.testing.assert_allclose(logits(7 * counts, 0.0), first, **tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonnegative": False}, "needs nonnegative features"),
        ({"offset": [0.0, 1.0, 0.0]}, "same offset"),
        ({"scale": [1.0, 1.0, 2.0]}, "same scale"),
        ({"smoothing": 0.1, "class_weights": [1.0, 1.0, 2.0]}, "common target"),
        ({"bias": "free"}, r"same weight \(with a bias\)"),
        ({"decay": (0.1, 0.1, 0.1)}, "one layer; got 2"),
        ({"loss": "mse"}, "the cross-entropy; got SquaredLoss"),
    ],
    ids=str,
)
def test_rejects_what_it_does_not_solve(change, message):
    arguments = {
        "counts": [3.0, 2.0, 1.0],
        "decay": (0.01, 0.01),
        "nonnegative": True,
    } | change
    with pytest.raises(ValueError, match=message):
        solve_nonnegative(make_program(**arguments), GAP_TOL)
