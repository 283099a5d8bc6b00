import math

import cvxpy as cp
import numpy as np
import pytest

from layerpeel.program.limits.contrastive_gram import GramProgram, _Point

PROGRAMS = {
    # sizes, counts, squared radius
    "two groups": ([3, 2], [50.0, 5.0], 2.0),
    "one and many": ([1, 4], [50.0, 5.0], 1.0),
    "two classes": ([1, 1], [50.0, 5.0], 1.0),
    "three groups": ([2, 1, 3], [40.0, 9.0, 3.0], 6.0),
    "all distinct": ([1, 1, 1, 1], [40.0, 9.0, 3.0, 2.0], 0.4),
}
programs = pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS.keys())


def program_of(case):
    sizes, counts, square = case
    return GramProgram(np.array(sizes, dtype=float), np.array(counts), square)


def full_program(case):
    """The K x K semidefinite program, one class at a time."""
    sizes, counts, square = case
    n = np.repeat(counts, sizes)
    gram = cp.Variable((len(n), len(n)), PSD=True)
    losses = []
    for k in range(len(n)):
        odds = [
            math.log(n[j] / (n[k] - 1)) + gram[k, j] - square
            for j in range(len(n))
            if j != k
        ]
        losses.append(n[k] * cp.log_sum_exp(cp.hstack([0, *odds])))
    problem = cp.Problem(cp.Minimize(sum(losses)), [cp.diag(gram) == square])
    problem.solve(solver=cp.CLARABEL)
    return problem.value, gram.value / square


@programs
def test_agrees_with_the_semidefinite_program(case):
    found = program_of(case).solve()
    value, cosines = full_program(case)
    assert math.exp(found.log_excess) == pytest.approx(value, rel=1e-6)
    assert found.gap < 1e-11
    firsts = np.cumsum([0, *case[0][:-1]])
    off = ~np.eye(len(firsts), dtype=bool)
    between = cosines[np.ix_(firsts, firsts)]
    np.testing.assert_allclose(found.cosines[off], between[off], atol=2e-3)
    for g, size in enumerate(case[0]):
        if size > 1:
            within = cosines[firsts[g], firsts[g] + 1]
            assert found.cosines[g, g] == pytest.approx(within, abs=2e-3)


@programs
@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-6])
def test_bounds_hold_anywhere_inside(case, share):
    program, value = program_of(case), full_program(case)[0]
    generator = np.random.default_rng(4)
    inside = 0
    for _ in range(40):
        x = generator.uniform(-0.5, 0.6, len(program.pairs[0]))
        if np.linalg.eigvalsh(program.cone(x))[0] <= 0:
            continue
        inside += 1
        point = _Point.of(program, x, share)
        assert math.exp(point.log_loss) * (1 - point.gap) <= value * (1 + 1e-6)
    assert inside > 3


@programs
def test_derivatives_are_those_of_finite_differences(case):
    program = program_of(case)
    generator = np.random.default_rng(5)
    x = 0.1 * generator.standard_normal(len(program.pairs[0]))
    point = _Point.of(program, x, share=0.1)
    step = 1e-6
    for v in range(len(x)):
        move = step * np.eye(len(x))[v]
        slope = (point._merit(x + move) - point._merit(x - move)) / (2 * step)
        assert point._gradient[v] == pytest.approx(slope, rel=1e-5, abs=1e-7)
        ahead, behind = (_Point.of(program, x + s * move, 0.1) for s in (1, -1))
        # Both are in units of their own loss.
        units = [math.exp(p.log_loss - point.log_loss) for p in (ahead, behind)]
        change = [
            unit * p.slope + p.weight * p._barrier_slope()
            for unit, p in zip(units, (ahead, behind), strict=True)
        ]
        curvature = point._curvature() + point.weight * point._barrier_curvature()
        expected = (change[0] - change[1]) / (2 * step)
        np.testing.assert_allclose(curvature[v], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("square", [1e-3, 30.0, 1000.0])
def test_is_certified_from_flat_to_steep(square):
    found = GramProgram(np.array([3.0, 3.0]), np.array([50.0, 5.0]), square).solve()
    assert found.gap < 1e-10
    assert math.isfinite(found.log_excess)


def test_a_large_radius_brings_the_simplex_back():
    program = GramProgram(np.array([3.0, 3.0]), np.array([50.0, 5.0]), 1e3)
    np.testing.assert_allclose(program.solve().cosines, -0.2, atol=2e-3)


def test_scaling_all_counts_far_up_removes_the_sample_itself():
    """n - 1 against n is all that depends on the size of the sample."""
    few, many = (
        GramProgram(np.array([2.0, 2.0]), scale * np.array([5.0, 1.0]), 3.0).solve()
        for scale in (1e8, 1e9)
    )
    np.testing.assert_allclose(few.cosines, many.cosines, atol=1e-7)
