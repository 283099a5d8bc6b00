"""Small programs of every kind, and group-symmetric points as dense matrices."""

import numpy as np
import torch

from layerpeel.program.convex.blocks import BlockProgram, Point
from tests.program.reference import make_program

MIXED = ((2, 3), (0,), (1, 4, 5))
PAIR = ((0, 1, 2), (3, 4))
SINGLES = ((0,), (1,), (2,), (3,))


def expanded(groups, values):
    """One number per group as one number per class."""
    full = np.empty(sum(map(len, groups)))
    for value, classes in zip(values, groups, strict=True):
        full[list(classes)] = value
    return full


def case(groups, counts, **options):
    per_group = ("class_weights", "scale", "offset", "margin")
    for name in per_group:
        if name in options:
            options[name] = expanded(groups, options[name])
    return groups, make_program(expanded(groups, counts), **options)


CASES = {
    "budget": case(PAIR, [10, 2], energy=(1, 2)),
    "budget, distinct": case(SINGLES, [40, 10, 3, 1], energy=(2, 1)),
    "decay per sample": case(MIXED, [20, 5, 1], decay=(0.02, 0.01)),
    "decay per class": case(PAIR, [10, 2], decay=(0.03, 0.03), per="class"),
    "weights": case(
        MIXED, [20, 5, 1], energy=(1, 1), class_weights=[1, 2, 5], smoothing=0.2
    ),
    "scale and margin": case(
        MIXED, [9, 3, 1], energy=(1, 2), scale=[1, 2, 0.5], margin=[1, 0.5, 2]
    ),
    "offset": case(PAIR, [10, 2], decay=(0.01, 0.01), offset=[1.0, -0.5]),
    "free bias": case(MIXED, [9, 3, 1], energy=(1, 1), bias="free"),
    "free bias, penalty": case(
        SINGLES, [9, 5, 3, 1], decay=(0.05, 0.02), per="class", bias="free"
    ),
    "ridge": case(PAIR, [10, 2], decay=(0.01, 0.02), bias=0.05),
    "squared": case(MIXED, [9, 3, 1], loss="mse", energy=(0.2, 0.2)),
    "squared, free bias": case(
        PAIR, [10, 2], loss="mse", decay=(0.02, 0.02), bias="free"
    ),
    "squared, ridge": case(
        SINGLES, [9, 5, 3, 1], loss="mse", energy=(0.3, 0.1), bias=0.3
    ),
    "everything": case(
        MIXED,
        [9, 3, 1],
        decay=(0.02, 0.01),
        class_weights=[1, 2, 3],
        smoothing=0.1,
        scale=[1, 2, 0.5],
        offset=[0.3, -1.0, 0.5],
        margin=[1, 0.5, 2],
        bias="free",
    ),
    "everything in a ball": case(
        MIXED,
        [9, 3, 1],
        energy=(0.5, 1),
        class_weights=[1, 2, 3],
        scale=[1, 2, 0.5],
        offset=[0.3, -1.0, 0.5],
        margin=[1, 0.5, 2],
        bias=0.02,
    ),
}


def blocks_of(name):
    groups, program = CASES[name]
    return program, BlockProgram.of(program, groups)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(rng, *shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def random_point(blocks, rng, scale=1.0):
    G = blocks.num_groups
    bias = normal(rng, G) if blocks.ridge is not None else normal(rng, G) * 0
    return Point(scale * normal(rng, G).abs(), scale * normal(rng, G, G), bias)


def indicators(groups):
    """The normalised group indicators, one per column."""
    U = torch.zeros(sum(map(len, groups)), len(groups), dtype=torch.float64)
    for g, classes in enumerate(groups):
        U[list(classes), g] = len(classes) ** -0.5
    return U


def spreads(groups):
    """The projections onto what differs within a group."""
    U = indicators(groups)
    for g in range(len(groups)):
        inside = torch.diag((U[:, g] > 0).to(U))
        yield inside - torch.outer(U[:, g], U[:, g])


def dense(groups, point):
    """X and the bias of a point, entry by entry; differentiable."""
    U = indicators(groups)
    X = U @ point.between @ U.T
    for value, projection in zip(point.spread, spreads(groups), strict=True):
        X = X + value * projection
    return X, U @ point.bias


def gathered(groups, X, bias):
    """The coordinates of the group-symmetric part of a matrix and a bias."""
    U = indicators(groups)
    shares = [torch.sum(X * P) / P.trace().clamp(min=1) for P in spreads(groups)]
    return Point(torch.stack(shares), U.T @ X @ U, U.T @ bias)


def loss_at(program, X, bias):
    """The loss and the ridge, densely, as a function of X and the bias."""
    return program.data_term(X / program.feature_weights, bias)


def nuclear_norm(groups, point):
    return float(torch.linalg.matrix_norm(dense(groups, point)[0], "nuc"))


def inner(blocks, first, second):
    """The inner product of two points; that of the matrices they stand for."""
    value = blocks.extra @ (first.spread * second.spread)
    value = value + (first.between * second.between).sum()
    return float(value + first.bias @ second.bias)


def assert_points_equal(blocks, point, expected, tol=1e-10):
    several = blocks.extra > 0
    for part, wanted in (
        (point.spread[several], expected.spread[several]),
        (point.between, expected.between),
        (point.bias, expected.bias),
    ):
        torch.testing.assert_close(part, wanted, rtol=tol, atol=tol)
