import math

import mpmath
import numpy as np
import pytest
import torch

from layerpeel.program.convex.aligned import aligned_residual, misalignment
from layerpeel.program.convex.certificate import certify
from layerpeel.program.convex.convex import solve_convex
from layerpeel.program.convex.directions import Directions
from layerpeel.program.reduction import alike
from layerpeel.program.solution import Status
from tests.program.convex.cases import (
    CASES,
    blocks_of,
    dense,
    gathered,
    generator,
    nuclear_norm,
    random_point,
)
from tests.program.reference import make_program

EVERY = pytest.mark.parametrize("name", CASES)


def aligned_at(blocks, point):
    directions = Directions.of(point.between)
    kept = directions.kept(directions.values > 1e-9)
    columns = blocks.columns(point)
    gradient = blocks.gradient(columns)
    residual = aligned_residual(blocks, gradient, point, kept)
    return kept, gradient, blocks.adjoint(columns.balanced(residual))


def nearly_solved(name):
    """A solution in the coordinates of its groups, with all that is zero exactly zero."""
    groups, program = CASES[name]
    solution = solve_convex(program, groups, 1e-12)
    X = solution.logits * program.feature_weights
    point = gathered(groups, X, solution.bias)
    directions = Directions.of(point.between)
    kept = directions.kept(directions.values > 1e-7 * directions.values[0])
    spread = torch.where(point.spread > 1e-7, point.spread, 0.0)
    return solution, point._replace(spread=spread, between=kept.matrix), kept


@EVERY
def test_a_residual_is_recovered_from_its_gradient(name):
    _, blocks = blocks_of(name)
    residual = blocks.columns(random_point(blocks, generator(1), 1.0)).residual
    again = blocks.residual(blocks.adjoint(residual))
    torch.testing.assert_close(again.own, residual.own)
    # A group of one class has no others of its own.
    there = blocks.sizes[:, None] > torch.eye(blocks.num_groups)
    torch.testing.assert_close(again.others[there], residual.others[there])


@EVERY
def test_every_direction_in_use_has_the_multiplier(name):
    _, blocks = blocks_of(name)
    _, point, _ = nearly_solved(name)
    kept, gradient, aligned = aligned_at(blocks, point)
    gains = -(kept.left.T @ aligned.between @ kept.right)
    spread = -aligned.spread[(point.spread > 0) & (blocks.extra > 0)]
    multiplier = blocks.multiplier or float(torch.cat([gains.diagonal(), spread])[0])
    wanted = multiplier * torch.eye(len(gains), dtype=torch.float64)
    torch.testing.assert_close(gains, wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(spread, torch.full_like(spread, multiplier))
    assert blocks.spectral_norm(aligned) == pytest.approx(multiplier, rel=1e-12)
    # And it is near the gradient itself.
    torch.testing.assert_close(aligned.between, gradient.between, rtol=0, atol=1e-7)


@EVERY
def test_the_misalignment_is_the_inner_product_less_cancelled(name):
    _, blocks = blocks_of(name)
    point = random_point(blocks, generator(2), 1.0)
    gradient = blocks.gradient(blocks.columns(point))
    norm = blocks.spectral_norm(gradient)
    zeros = torch.zeros_like(point.bias)
    G, X = (dense(blocks.groups, p._replace(bias=zeros))[0] for p in (gradient, point))
    wanted = norm * nuclear_norm(blocks.groups, point) + float((G * X).sum())
    directions = Directions.of(point.between)
    found = misalignment(blocks, gradient, norm, point, directions)
    assert found == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("name", ["budget, distinct", "decay per sample", "everything"])
def test_the_gap_is_of_second_order(name):
    _, blocks = blocks_of(name)
    _, point, kept = nearly_solved(name)
    rng = generator(4)
    tilt = torch.rand(len(kept.values), dtype=torch.float64, generator=rng)
    gaps = []
    for size in (1e-4, 1e-2):
        values = kept.values * (1 - size * tilt)
        # What one direction loses another gains: the budget stays spent.
        spent = kept.values.sum() / values.sum() if blocks.budget else 1.0
        moved = kept._replace(values=values * spent)
        gaps.append(certify(blocks, point._replace(between=moved.matrix), moved)[0].gap)
    assert gaps[0] < 1e-7
    assert gaps[1] / gaps[0] == pytest.approx(1e4, rel=0.2)


def log_optimum(counts, energy, logits):
    """The log of the least loss of three classes, by Newton's method in 50 digits."""
    mpmath.mp.dps = 50
    K = 3
    pi = [mpmath.mpf(count) / sum(counts) for count in counts]
    # Columns of logits sum to zero: coordinates in an orthonormal basis of that plane.
    C = mpmath.matrix([[1, 1], [-1, 1], [0, -2]])
    for j in range(2):
        C[:, j] /= mpmath.norm(C[:, j])
    unit = mpmath.mpf(-energy * K / (K - 1))

    def parts(y):
        Y = mpmath.matrix([y[:3], y[3:6]])
        Z, weighted, total = C * Y, mpmath.matrix(K, K), mpmath.mpf(0)
        for k in range(K):
            odds = [mpmath.exp(Z[j, k] - Z[k, k]) if j != k else 0 for j in range(K)]
            loss = mpmath.log1p(sum(odds))
            total += pi[k] * loss
            for j in range(K):
                weighted[j, k] = pi[k] * odds[j] * mpmath.exp(-loss)
            weighted[k, k] = -sum(weighted[j, k] for j in range(K) if j != k)
        M = Y * Y.T
        root = mpmath.sqrt(mpmath.det(M))
        trace = mpmath.sqrt(M[0, 0] + M[1, 1] + 2 * root)
        S = (M + root * mpmath.eye(2)) / trace  # the root of M
        return total, C.T * weighted, S, Y, trace

    def conditions(*y):
        _, gradient, S, Y, norm = parts(y[:6])
        slope = gradient / mpmath.exp(unit) + y[6] * mpmath.inverse(S) * Y
        return [*slope, norm - K * mpmath.mpf(energy)]

    start = C.T * mpmath.matrix(logits.tolist())
    _, gradient, _, _, norm = parts(list(start))
    gain = -sum(a * b for a, b in zip(gradient, start, strict=True))
    first = [*start, gain / norm / mpmath.exp(unit)]
    y = mpmath.findroot(conditions, first, tol=1e-60, maxsteps=50)
    return mpmath.log(parts(list(y)[:6])[0])


@pytest.mark.parametrize("energy", [30.0, 1e3, 1e6])
def test_the_gap_holds_against_many_digits(energy):
    counts = [50.0, 7.0, 1.0]
    program = make_program(counts, energy=(energy, energy))
    solution = solve_convex(program, alike(program), 1e-8)
    excess = solution.stats["log_objective"] - log_optimum(
        counts, energy, solution.logits
    )
    # Beside the gap only the rounding of the logits counts.
    rounding = 4 * energy * np.finfo(float).eps + 1e-14
    assert -rounding < excess < solution.certificate.gap + rounding
    assert solution.certificate.gap < 1e-8


GROUPED = {
    "three groups": [100.0] * 3 + [10.0] * 2 + [1.0] * 2,
    "four groups": [1000.0] * 2 + [100.0] * 3 + [10.0] * 2 + [1.0] * 3,
    "huge imbalance": [1e12] * 2 + [1e6] + [1.0] * 3,
    "five distinct": np.geomspace(500, 5, 5).tolist(),
    "twenty distinct": np.geomspace(5000, 5, 20).tolist(),
}


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("energy", [1e4, 1e5, 1e6])
def test_huge_energies_are_certified(name, energy):
    counts = GROUPED[name]
    program = make_program(counts, energy=(energy, energy))
    solution = solve_convex(program, alike(program), 1e-8)
    assert solution.status is Status.CERTIFIED
    assert solution.certificate.gap < 1e-14 * energy
    # Far out the logits are those of the simplex frame, up to a bounded amount.
    K = len(counts)
    frame = (torch.eye(K) - 1 / K) * energy * K / (K - 1)
    assert float((solution.logits - frame).abs().max()) < 4 * math.log(max(counts)) + K
