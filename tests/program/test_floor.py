import math

import numpy as np
import pytest

from layerpeel.program import Energy, collapse_threshold
from layerpeel.program.floor import FloorPath
from tests.program.layer_peeled_reference import mean_cosine, solve_nuclear
from tests.program.reference import cvxpy_solve, make_program

# counts, energy, block, target
CASES = {
    "collapsed tail": ([60.0, 25.0, 9.0, 3.0, 1.0], (1.0, 2.0), (2, 3, 4), 0.3),
    "apart": ([60.0, 25.0, 9.0, 3.0, 1.0], (1.0, 12.0), (3, 4), -0.2),
    "groups and a tail": ([40.0, 40.0, 8.0, 8.0, 2.0, 1.0], (1.0, 4.0), (4, 5), 0.2),
    "target near one": ([60.0, 20.0, 2.0, 1.0], (1.0, 1.0), (2, 3), 0.95),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def reference(counts, energy, floor):
    """Logits with rare classes lifted, by an interior-point solver."""
    lifted = np.maximum(counts, floor)
    program = make_program(lifted, energy=energy)
    return cvxpy_solve(program, **dict.fromkeys(("tol_gap_abs", "tol_gap_rel"), 1e-10))[
        1
    ]


def cosine(logits, block):
    """W W^T is proportional to the root of Z Z^T."""
    U, S, _ = np.linalg.svd(logits)
    gram = (U * S) @ U.T
    return mean_cosine(gram[np.ix_(block, block)])


@cases
def test_separates_at_the_least_floor_of_all(case):
    counts, energy, block, target = case
    floor = FloorPath(tuple(counts), Energy.of(energy), block).separating_floor(target)
    assert min(counts) < floor < max(counts)
    assert cosine(reference(counts, energy, floor * 1.01), block) < target
    for below in np.geomspace(min(counts), floor * 0.99, 3):
        assert cosine(reference(counts, energy, below), block) > target


def test_lifts_the_collapse_and_not_before():
    counts, energy, block, _ = CASES["groups and a tail"]
    floor = FloorPath(tuple(counts), Energy.of(energy), block).lifting_floor()
    rarest = sorted(range(len(counts)), key=lambda k: counts[k])[:2]
    for factor in (0.99, 1.01):
        logits = reference(counts, energy, floor * factor)
        distance = np.linalg.norm(logits[rarest[0]] - logits[rarest[1]])
        assert distance > 1e-2 if factor > 1 else distance < 1e-4


def test_there_may_be_no_collapse_to_lift():
    counts, energy, block, _ = CASES["apart"]
    path = FloorPath(tuple(counts), Energy.of(energy), block)
    assert math.isnan(path.lifting_floor())
    assert path.solves == 1


def test_two_groups_are_lifted_at_their_threshold():
    path = FloorPath((100.0,) * 3 + (1.0,) * 3, Energy(1.0, 3.0), (3, 4, 5))
    threshold = collapse_threshold(majority=3, minority=3, energy=(1.0, 3.0))
    assert path.lifting_floor() == pytest.approx(100 / threshold, rel=1e-6)


def test_every_floor_is_solved_once():
    path = FloorPath((9.0, 4.0, 2.0, 1.0), Energy(1.0, 2.0), (2, 3))
    first = path.separating_floor(0.0)
    solves = path.solves
    assert path.separating_floor(0.0) == first
    assert path.solves == solves < 20


def test_a_block_that_vanishes_counts_as_merged():
    counts = (500.0,) * 5 + (2.0, 1.0)
    path = FloorPath(counts, Energy(1.0, 0.5), (5, 6))
    assert math.isnan(path.at(1.0).cosine)
    floor = path.separating_floor(0.5)
    logits = reference(counts, (1.0, 0.5), floor)
    assert cosine(logits, (5, 6)) == pytest.approx(0.5, abs=1e-4)


def test_the_reference_agrees_with_the_paper_form():
    counts, energy, _, _ = CASES["apart"]
    logits = solve_nuclear(counts, energy)[1]
    assert logits == pytest.approx(reference(counts, energy, 0.0), abs=1e-3)
