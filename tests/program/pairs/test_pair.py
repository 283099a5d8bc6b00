import math
from dataclasses import replace

import numpy as np
import pytest

from layerpeel.program import Status
from layerpeel.program.counts import CountGroup
from layerpeel.program.pairs.pair import is_pair, solve_pair, two_group_program
from layerpeel.program.reduction import alike
from tests.program.layer_peeled_reference import solve_nuclear
from tests.program.reference import make_program, nuclear_norm, objective

COUNTS = [9.0, 2.0, 9.0, 2.0, 2.0]


def pair_of(counts=COUNTS, energy=(1.0, 2.0), **keywords):
    program = make_program(counts, energy=energy, **keywords)
    return program, alike(program)


def test_plain_cross_entropy_of_two_groups_is_a_pair():
    assert is_pair(*pair_of())


OTHERS = {
    "one group": {"counts": [1.0, 1.0]},
    "three groups": {"counts": [3.0, 2.0, 1.0]},
    "free bias": {"bias": "free"},
    "ridge": {"bias": 0.1},
    "smoothing": {"smoothing": 0.1},
    "scale": {"scale": 2.0},
    "offset": {"offset": 1.0},
    "margin": {"margin": 2.0},
    "squared error": {"loss": "mse"},
    "decay": {"energy": None, "decay": (1e-2, 1e-2), "per": "class"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_not(name):
    assert not is_pair(*pair_of(**OTHERS[name]))


def test_a_budget_per_sample_is_not():
    program, groups = pair_of()
    weighted = replace(program, feature_weights=program.weights.sqrt())
    assert not is_pair(weighted, groups)


@pytest.mark.parametrize("energy", [(0.1, 0.1), (1.0, 2.0), (3.0, 1.0)], ids=str)
def test_agrees_with_the_nuclear_norm_program(energy):
    program, groups = pair_of(energy=energy)
    solution = solve_pair(program, groups, 1e-10)
    value, logits = solve_nuclear(COUNTS, energy)
    assert solution.status is Status.CERTIFIED
    assert solution.objective == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(
        solution.logits, logits - logits.mean(axis=0), rtol=0, atol=5e-4
    )
    assert objective(program, solution.logits) == pytest.approx(
        solution.objective, rel=1e-12
    )
    budget = program.regulariser.budget
    assert nuclear_norm(program, solution.logits) <= budget * (1 + 1e-12)
    assert not solution.bias.any()


def test_both_energies_are_spent():
    program, groups = pair_of(energy=(3.0, 0.5))
    solution = solve_pair(program, groups, 1e-10)
    W, H = solution.classifiers(), solution.class_means()
    assert float(W.square().sum()) == pytest.approx(5 * 3.0, rel=1e-12)
    assert float(H.square().sum()) == pytest.approx(5 * 0.5, rel=1e-12)


def test_a_tolerance_below_rounding_is_not_certified():
    program, groups = pair_of(energy=(20.0, 20.0))
    solution = solve_pair(program, groups, 1e-300)
    assert solution.status is Status.STATIONARY
    assert solution.certificate.gap > 1e-300


@pytest.mark.parametrize("excess", [1e-11, 1e-6, 0.5, 3.0, 1e12])
def test_the_log_ratio_keeps_its_digits(excess):
    groups = [CountGroup(2.0 + 2.0 * excess, (0, 2)), CountGroup(2.0, (1,))]
    program = two_group_program(groups, tau=1.5)
    assert (program.majority, program.minority, program.tau) == (2, 1, 1.5)
    exact = (groups[0].count - 2.0) / 2.0  # without rounding, by the Sterbenz lemma
    assert program.log_ratio == pytest.approx(math.log1p(exact), rel=1e-14, abs=0)
