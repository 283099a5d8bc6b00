import math

import numpy as np
import pytest

from layerpeel.program.dual_path import solve_two_groups
from layerpeel.program.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)
from layerpeel.program.two_groups import TwoGroups
from tests.program.layer_peeled_reference import counts_of, lower_bound, objective

SIZES = [(1, 1), (1, 5), (5, 1), (2, 2), (3, 7), (7, 3)]
ENERGIES = [1e-6, 0.3, math.sqrt(5), 40.0]  # sqrt(E_W E_H)
RATIOS = [1 + 1e-6, 3.0, 1e5, 1e12]


def dense_gap(program):
    """Relative gap of the solution, recomputed densely; and its nuclear norm."""
    K_A, K_B = program.majority, program.minority
    logits = solve_two_groups(program)
    matrix = logits.spectrum(tuple(range(K_A)), tuple(range(K_A, K_A + K_B))).matrix
    counts = counts_of(K_A, K_B, math.exp(program.log_ratio))
    bound = lower_bound(matrix, counts, program.tau)
    norm = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
    return 1 - bound / objective(matrix, counts), norm, logits


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("scale", ENERGIES)
def test_is_optimal_at_every_ratio(majority, minority, scale):
    tau = (majority + minority) * scale
    for ratio in RATIOS:
        program = TwoGroups(majority, minority, math.log(ratio), tau)
        gap, norm, logits = dense_gap(program)
        assert gap < 1e-10
        assert norm == pytest.approx(tau, rel=1e-12)
        assert min(logits.alpha, logits.beta, logits.rho) >= 0


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("scale", ENERGIES)
@pytest.mark.parametrize("shift", [-1e-2, -1e-7, 0.0, 1e-7])
def test_is_optimal_next_to_both_thresholds(majority, minority, scale, shift):
    tau = (majority + minority) * scale
    for threshold in (log_collapse_threshold, log_vanishing_threshold):
        log_ratio = threshold(majority, minority, tau) * (1 + shift)
        if log_ratio < 50:
            gap, _, _ = dense_gap(TwoGroups(majority, minority, log_ratio, tau))
            assert gap < 1e-10


@pytest.mark.parametrize(("majority", "minority"), [(1, 3), (2, 2), (3, 7), (7, 3)])
@pytest.mark.parametrize("scale", [0.1, 0.9, 4.0])
def test_collapses_exactly_from_the_threshold_on(majority, minority, scale):
    tau = (majority + minority) * scale
    threshold = log_collapse_threshold(majority, minority, tau)

    def beta(factor):
        log_ratio = threshold + math.log(factor)
        return solve_two_groups(TwoGroups(majority, minority, log_ratio, tau)).beta

    assert beta(0.98) > 0
    assert beta(1.02) == 0.0


def test_vanishes_exactly_from_the_threshold_on():
    tau = 10 * math.sqrt(5)
    threshold = log_vanishing_threshold(7, 3, tau)
    below = solve_two_groups(TwoGroups(7, 3, threshold * 0.999, tau))
    above = solve_two_groups(TwoGroups(7, 3, threshold * 1.001, tau))
    assert below.rho > 0
    assert (above.beta, above.rho) == (0.0, 0.0)


@pytest.mark.parametrize(("majority", "minority"), [(100, 1), (1, 100), (3, 5), (1, 1)])
@pytest.mark.parametrize("log_ratio", [1e-11, 690.0])
def test_extreme_energies_stay_finite_within_the_budget(majority, minority, log_ratio):
    for scale in (1e-300, 1e-12, 1e6, 1e150):
        tau = (majority + minority) * scale
        logits = solve_two_groups(TwoGroups(majority, minority, log_ratio, tau))
        assert logits.nuclear_norm == pytest.approx(tau, rel=1e-12)
        assert min(logits.alpha, logits.beta, logits.rho) >= 0


def test_cost_does_not_depend_on_the_number_of_classes():
    few = solve_two_groups(TwoGroups(3, 3, math.log(5), 6.0))
    many = solve_two_groups(TwoGroups(3000, 3000, math.log(5), 6000.0))
    assert many.evaluations < 2 * few.evaluations
