import math

import numpy as np
import pytest

from layerpeel.program.pairs.two_groups import TwoGroupLogits, TwoGroups
from tests.program.layer_peeled_reference import mean_cosine

CASES = {
    # K_A, K_B, alpha, beta, rho, theta
    "interior": (3, 4, 2.0, 0.7, 1.5, 0.9),
    "collapsed": (3, 4, 2.0, 0.0, 1.5, 0.9),
    "one majority class": (1, 4, 0.0, 0.7, 1.5, 0.2),
    "one minority class": (4, 1, 0.7, 0.0, 1.5, 1.2),
    "two classes": (1, 1, 0.0, 0.0, 1.5, 0.4),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def logits_of(case):
    K_A, K_B, alpha, beta, rho, theta = case
    program = TwoGroups(K_A, K_B, log_ratio=1.0, tau=1.0)
    return TwoGroupLogits(program, alpha, beta, rho, math.cos(theta), math.sin(theta))


def entrywise(case):
    """The matrix block by block, from p and r instead of singular vectors."""
    K_A, K_B, alpha, beta, rho, theta = case
    K = K_A + K_B
    p = rho * math.cos(theta) * math.sqrt(K_B / K)
    r = rho * math.sin(theta) * math.sqrt(K_A / K)
    within = [
        spread * (np.eye(m) - 1 / m) + part / m
        for m, spread, part in [(K_A, alpha, p), (K_B, beta, r)]
    ]
    across = np.full((K_A, K_B), -r / K_A), np.full((K_B, K_A), -p / K_B)
    return np.block([[within[0], across[0]], [across[1], within[1]]])


@cases
def test_spectrum_has_the_entries_of_the_block_form(case):
    K_A, K_B = case[:2]
    classes = tuple(range(K_A)), tuple(range(K_A, K_A + K_B))
    matrix = logits_of(case).spectrum(*classes).matrix
    np.testing.assert_allclose(matrix, entrywise(case), rtol=0, atol=1e-14)
    np.testing.assert_allclose(matrix.sum(0), 0, atol=1e-14)


@cases
def test_nuclear_norm_is_that_of_the_matrix(case):
    expected = np.linalg.svd(entrywise(case), compute_uv=False).sum()
    assert logits_of(case).nuclear_norm == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", ["interior", "collapsed", "one majority class"])
def test_minority_cosine_is_that_of_the_classifiers(name):
    case = CASES[name]
    left, values, _ = np.linalg.svd(entrywise(case))
    gram = (left * values) @ left.T
    block = gram[case[0] :, case[0] :]
    assert logits_of(case).minority_cosine == pytest.approx(
        mean_cosine(block), abs=1e-13
    )


def test_minority_cosine_of_a_vanished_minority_is_undefined():
    assert math.isnan(logits_of((3, 4, 2.0, 0.0, 0.0, 0.9)).minority_cosine)


def test_vanished_minority_is_exactly_zero():
    spectrum = logits_of((3, 2, 2.0, 0.0, 0.0, 0.9)).spectrum((0, 1, 2), (3, 4))
    for matrix in (spectrum.matrix, spectrum.left_power(), spectrum.left_factor()):
        assert not matrix[3:].any()
    assert spectrum.rank == 2


def test_frequencies():
    log_pi = TwoGroups(2, 5, log_ratio=math.log(10), tau=1.0).log_frequencies()
    assert np.exp(log_pi) == pytest.approx([10 / 25, 1 / 25])
    huge = TwoGroups(2, 5, log_ratio=690.0, tau=1.0).log_frequencies()
    assert huge == pytest.approx([math.log(0.5), math.log(0.5) - 690])


def test_scaling_spends_the_budget_and_clears_a_negative_rest():
    logits = logits_of(CASES["interior"]).scaled_to(5.0, evaluations=7)
    assert logits.nuclear_norm == pytest.approx(5.0)
    assert logits.evaluations == 7
    rounded = TwoGroupLogits(
        TwoGroups(3, 2, 1.0, 1.0), 1.0, 0.0, rho=-1e-16, cos=0.6, sin=0.8
    )
    assert rounded.scaled_to(2.0, 0).rho == 0.0
    assert rounded.scaled_to(2.0, 0).nuclear_norm == 2.0
