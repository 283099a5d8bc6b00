import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import entr

from layerpeel.program.convex import certificate as module
from layerpeel.program.convex.bias import stationary_bias
from layerpeel.program.convex.certificate import certify, certify_spectrum
from layerpeel.program.convex.directions import Directions
from layerpeel.program.spectrum import BlockSpectrum
from tests.program.convex.cases import (
    CASES,
    blocks_of,
    dense,
    expanded,
    gathered,
    generator,
    nuclear_norm,
    random_point,
)
from tests.program.layer_peeled_reference import lower_bound, objective
from tests.program.reference import cvxpy_solve, make_program
from tests.program.reference import objective as full_objective

GROUPS = {
    "one group": ((0, 1, 2, 3),),
    "two groups": ((0, 1, 2), (3, 4)),
    "single classes": ((0,), (1,), (2,), (3,)),
    "three groups": ((2, 3), (0,), (1, 4, 5)),
}
EVERY = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def plain(monkeypatch):
    """Only the bound that mixes the softmax with the targets."""
    monkeypatch.setattr(module, "_aligned_gap", lambda *_: math.inf)


def random_spectrum(groups, scale, generator):
    """Any group-symmetric matrix at all, far from every optimum."""
    square = torch.randn(
        (len(groups), len(groups)), dtype=torch.float64, generator=generator
    )
    left, values, right = torch.linalg.svd(scale * square)
    within = scale * torch.rand(len(groups), dtype=torch.float64, generator=generator)
    return BlockSpectrum(groups, within, values, left, right.T.contiguous())


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0, 20.0])
@pytest.mark.parametrize("slack", [1.0, 1.5, 10.0])
def test_agrees_with_the_plain_dense_bound_at_any_logits(plain, groups, scale, slack):
    rng = generator(3)
    for _ in range(3):
        spectrum = random_spectrum(groups, scale, rng)
        counts = expanded(groups, np.exp(np.linspace(3, 0, len(groups))))
        tau = slack * spectrum.nuclear_norm
        program = make_program(counts, energy=(tau / len(counts), tau / len(counts)))
        certificate, log_objective = certify_spectrum(program, spectrum)
        value = objective(spectrum.matrix, counts)
        assert certificate.objective == pytest.approx(value, rel=1e-12)
        assert log_objective == pytest.approx(math.log(value), abs=1e-12)
        # No objective is negative, and the bound does not go below that.
        wanted = max(lower_bound(spectrum.matrix, counts, tau), 0.0)
        assert certificate.lower_bound == pytest.approx(wanted, rel=1e-8, abs=1e-8)
        assert certificate.lower_bound <= certificate.objective


def test_is_finite_where_the_objective_underflows():
    none = torch.zeros(1, 0, dtype=torch.float64)
    within = torch.tensor([2000.0], dtype=torch.float64)
    spectrum = BlockSpectrum(((0, 1, 2),), within, none[0], none, none)

    def certified(tau):
        return certify_spectrum(make_program([1] * 3, energy=(tau / 3,) * 2), spectrum)

    certificate, log_objective = certified(4000.0)
    assert certificate.objective == certificate.lower_bound == 0.0
    assert log_objective == pytest.approx(math.log(2) - 2000)
    assert certificate.gap < 1e-9
    # The same logits under a wider budget are not optimal, and it shows.
    assert certified(4040.0)[0].gap > 0.5


def test_nothing_is_certified_of_what_is_not_finite():
    _, blocks = blocks_of("squared")
    point = random_point(blocks, generator(0), 1e200)
    directions = Directions.of(point.between)
    certificate, log_objective = certify(blocks, point, directions)
    assert math.isnan(certificate.objective)
    assert math.isnan(log_objective)


def dense_bound(program, logits, bias):
    """The dual, matrix by matrix, maximised over the mixing weight."""
    pi, delta = program.weights.numpy(), program.feature_weights.numpy()
    K, tau, mu = len(pi), program.regulariser.budget, program.regulariser.multiplier
    Z = logits + bias[:, None]
    if hasattr(program.loss, "targets"):
        loss = program.loss
        gamma, iota, m = (x.numpy() for x in (loss.scale, loss.offset, loss.margin))
        T = loss.targets.numpy()
        a = gamma[:, None] * Z / m + iota[:, None]
        P = np.exp(a - np.logaddexp.reduce(a, axis=0))
        R = P - T

        def conjugate(c):
            entropy = pi @ entr(np.clip(T + c * R, 0, 1)).sum(axis=0)
            return entropy + c * iota @ (R @ pi)

    else:
        gamma, m, R = np.ones(K), np.ones(K), Z - np.eye(K)

        def conjugate(c):
            return -c * np.diag(R) @ pi - c**2 / 2 * (R**2).sum(axis=0) @ pi

    slopes = gamma[:, None] * R * (pi / m)
    spec = np.linalg.norm(slopes / delta, 2)
    pull = np.sum(slopes.sum(axis=1) ** 2) / (2 * program.ridge) if program.ridge else 0

    def dual(c):
        return conjugate(c) - c * (tau or 0.0) * spec - c**2 * pull

    top = 1.0 if mu is None else min(1.0, mu / spec)
    best = minimize_scalar(
        lambda c: -dual(c), bounds=(0, top), method="bounded", options={"xatol": 1e-12}
    )
    return max(dual(top), dual(best.x), 0.0)


def fitting_point(blocks, point):
    """The point inside the ball, where there is one."""
    if blocks.budget is None:
        return point
    share = min(1.0, blocks.budget / nuclear_norm(blocks.groups, point))
    return point._replace(spread=share * point.spread, between=share * point.between)


def evaluated(blocks, point):
    return certify(blocks, point, Directions.of(point.between))[0]


@EVERY
@pytest.mark.parametrize("scale", [1e-2, 0.5, 3.0])
def test_agrees_with_the_dense_formula(plain, name, scale):
    program, blocks = blocks_of(name)
    rng = generator(5)
    for _ in range(3):
        point = fitting_point(blocks, random_point(blocks, rng, scale))
        if blocks.ridge == 0:
            point = stationary_bias(blocks, point)
        certificate = evaluated(blocks, point)
        X, bias = (part.numpy() for part in dense(blocks.groups, point))
        logits = X / program.feature_weights.numpy()
        value = full_objective(program, logits, bias)
        assert certificate.objective == pytest.approx(value, rel=1e-11)
        wanted = dense_bound(program, logits, bias)
        assert certificate.lower_bound == pytest.approx(wanted, rel=1e-8, abs=1e-8)


@cache
def optimum(name):
    """The optimal value of an interior-point solver, and its point, made symmetric."""
    groups, program = CASES[name]
    value, logits, bias = cvxpy_solve(program)
    X = torch.from_numpy(logits * program.feature_weights.numpy())
    return value, gathered(groups, X, torch.from_numpy(np.array(bias)))


def perturbed(blocks, point, rng, size):
    noise = random_point(blocks, rng, size)
    moved = point._replace(
        spread=(point.spread + noise.spread).clamp(min=0),
        between=point.between + noise.between,
        bias=point.bias + size * noise.bias,
    )
    return fitting_point(blocks, moved)


@EVERY
def test_no_bound_exceeds_the_optimum(name):
    _, blocks = blocks_of(name)
    value, best = optimum(name)
    rng = generator(6)
    highest = -math.inf
    for trial in range(100):
        size = 10 ** (-6 + 7 * (trial % 20) / 19)
        point = perturbed(blocks, best, rng, size)
        # Every other free bias is not stationary: the bound must pay for that.
        if blocks.ridge == 0 and trial % 2:
            point = stationary_bias(blocks, point)
        certificate = evaluated(blocks, point)
        assert certificate.lower_bound <= value + 1e-6
        assert certificate.objective >= value - 1e-6
        highest = max(highest, certificate.lower_bound)
    assert highest >= value - 1e-3 * abs(value)


@EVERY
def test_the_bound_is_tight_at_the_optimum(name):
    _, blocks = blocks_of(name)
    value, best = optimum(name)
    point = fitting_point(blocks, best)
    if blocks.ridge == 0:
        point = stationary_bias(blocks, point)
    certificate = evaluated(blocks, point)
    assert certificate.objective == pytest.approx(value, rel=1e-5)
    assert certificate.lower_bound == pytest.approx(value, rel=1e-3)


def test_a_free_bias_that_is_not_stationary_weakens_the_bound():
    _, blocks = blocks_of("free bias")
    _, best = optimum("free bias")
    point = stationary_bias(blocks, fitting_point(blocks, best))
    bounds = []
    for size in [0.0, 1e-6, 1e-4, 1e-2]:
        moved = point.bias + size * torch.tensor([1.0, -1.0, 0.5]).to(point.bias)
        bounds.append(evaluated(blocks, point._replace(bias=moved)).lower_bound)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1] + 1e-3
