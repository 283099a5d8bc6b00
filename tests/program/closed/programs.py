"""Programs with any weights, checks of a solution, and L-BFGS on the factors."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss, SquaredLoss
from layerpeel.program.regulariser import Regulariser
from tests.program.reference import data_term, factor_penalty, objective

GAP_TOL = 1e-8


def vector(values):
    return torch.tensor(np.asarray(values, dtype=np.float64))


def penalty(multiplier, depth=1, balance=1.0):
    return Regulariser(None, float(multiplier), depth, balance)


def budget(tau, balance=1.0):
    return Regulariser(float(tau), None, 1, balance)


def squared_program(weights, delta, regulariser, **options):
    return ClassLevel(
        vector(weights), vector(delta), SquaredLoss(), regulariser, **options
    )


def check(program, solution, rel=1e-10):
    """Objective, factors and logits of a solution say the same, and are feasible."""
    certificate, regulariser = solution.certificate, program.regulariser
    W, H = solution.classifiers(), solution.class_means()
    value = data_term(program, W @ H.T, solution.bias)
    if regulariser.budget is None:
        value += factor_penalty(program, W, H)
        if not program.nonnegative:
            stated = objective(program, solution.logits, solution.bias)
            assert stated == pytest.approx(solution.objective, rel=rel)
    else:
        weighted = H * program.feature_weights[:, None]
        tau, balance = regulariser.budget * (1 + 1e-12), regulariser.balance
        assert W.square().sum() <= tau * balance
        assert weighted.square().sum() <= tau / balance
    assert value == pytest.approx(solution.objective, rel=rel, abs=1e-20)
    np.testing.assert_allclose(
        solution.logits, W @ H.T, rtol=0, atol=1e-12 * (1 + solution.logits.abs().max())
    )
    if program.nonnegative:
        assert H.min() >= 0
    assert certificate.lower_bound <= certificate.objective


class _Factors:
    """Layers, features and bias in one vector, differentiably."""

    def __init__(self, program, width):
        K, M = program.num_classes, program.regulariser.depth
        self.program = program
        self.shapes = [(K, width), *[(width, width)] * (M - 1), (width, K), (K,)]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def unpack(self, x):
        parts = zip(torch.split(x, self.sizes), self.shapes, strict=True)
        *matrices, bias = (part.reshape(shape) for part, shape in parts)
        tau = self.program.regulariser.budget
        if tau is not None:
            matrices = [_inside(matrix, tau) for matrix in matrices]
        return matrices, bias * (self.program.ridge is not None)

    def logits(self, x):
        matrices, bias = self.unpack(x)
        return torch.linalg.multi_dot(matrices) / self.program.feature_weights, bias

    def value(self, x):
        logits, bias = self.logits(x)
        total = 0.5 * (self.program.ridge or 0.0) * (bias**2).sum()
        losses = _squared if isinstance(self.program.loss, SquaredLoss) else _softmax
        total = total + self.program.weights @ losses(self.program.loss, logits, bias)
        if self.program.regulariser.budget is None:
            squares = (x[: -self.sizes[-1]] ** 2).sum()
            total = total + 0.5 * self.program.regulariser.multiplier * squares
        return total

    def value_and_gradient(self, x):
        x = torch.tensor(x, requires_grad=True)
        value = self.value(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient.numpy()

    def identity(self):
        matrices = [np.eye(*shape).ravel() for shape in self.shapes[:-1]]
        return np.concatenate([*matrices, np.zeros(self.shapes[-1])])

    def bounds(self):
        bounds = [(None, None)] * sum(self.sizes)
        if self.program.nonnegative:
            first = sum(self.sizes[:-2])
            bounds[first : first + self.sizes[-2]] = [(0, None)] * self.sizes[-2]
        return bounds


def _inside(matrix, square):
    """Pull a matrix back onto the ball of the given squared radius."""
    return matrix * (square**0.5 / matrix.norm()).clamp(max=1.0)


def _squared(loss, logits, bias):
    residual = logits + bias[:, None] - torch.eye(len(bias), dtype=bias.dtype)
    return 0.5 * (residual**2).sum(dim=0)


def _softmax(loss: SoftmaxLoss, logits, bias):
    z = loss.scale[:, None] * (logits + bias[:, None]) / loss.margin
    logp = torch.log_softmax(z + loss.offset[:, None], dim=0)
    own = (1 - loss.smoothing) * logp.diagonal()
    return -own - loss.smoothing * (loss.common @ logp)


def solve_factors(program, width=None, starts=4, seed=0, spread=1.0, centre=0.0):
    """Minimise over the factors from random starts; the best value and its logits.

    Starts scatter around `centre` times the identity in every factor: zero is a local
    minimum of deep programs, which starts around it rarely leave.
    """
    factors = _Factors(program, width or program.num_classes)
    generator = np.random.default_rng(seed)
    best = None
    for _ in range(starts):
        start = spread * generator.standard_normal(sum(factors.sizes))
        start += centre * factors.identity()
        result = minimize(
            factors.value_and_gradient,
            np.abs(start) if program.nonnegative else start,
            jac=True,
            method="L-BFGS-B",
            bounds=factors.bounds(),
            options={"maxiter": 4000, "maxfun": 8000, "ftol": 0, "gtol": 1e-9},
        )
        if best is None or result.fun < best.fun:
            best = result
    logits, bias = factors.logits(torch.tensor(best.x))
    return best.fun, logits.numpy(), bias.numpy()
