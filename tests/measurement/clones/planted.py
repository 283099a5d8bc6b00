"""Layers with known clones: mixtures of the same signals, plus independent noise."""

import torch

from tests.measurement.clones.layers import normal


def mixing(clones, signals, *, seed=0, aligned=False):
    """Each clone an invertible matrix of its own, one below another."""
    if aligned:
        return torch.eye(signals, dtype=torch.float64).repeat(clones, 1)
    turns = [
        torch.linalg.qr(normal(signals, signals, seed=1000 * seed + i + 1))[0]
        for i in range(clones)
    ]
    return torch.cat(turns)


def layer(matrix, samples, noise, *, seed=0):
    """Signals, and the neurons that carry them."""
    s = normal(samples, matrix.shape[1], seed=seed)
    return s, s @ matrix.T + noise * normal(samples, len(matrix), seed=seed + 10_000)


def covariance(matrix, noise):
    """The covariance of the population."""
    return matrix @ matrix.T + noise**2 * torch.eye(len(matrix), dtype=torch.float64)


def left(population, chunk):
    """The covariance of what a chunk misses of the neurons outside it."""
    others = [j for j in range(len(population)) if j not in set(chunk.tolist())]
    cross = population[chunk][:, others]
    own = population[chunk][:, chunk]
    return population[others][:, others] - cross.T @ torch.linalg.solve(own, cross)


def r_squared(population, chunk):
    others = [j for j in range(len(population)) if j not in set(chunk.tolist())]
    return 1 - float(
        left(population, chunk).trace() / population.diagonal()[others].sum()
    )


def residual_correlation(population, chunk):
    missed = left(population, chunk)
    deviation = missed.diagonal().sqrt()
    correlations = (missed / torch.outer(deviation, deviation)).abs()
    pairs = torch.tril_indices(len(missed), len(missed), -1)
    return float(correlations[*pairs].mean())


def shared(population):
    """What each neuron shares with all others."""
    missed = 1 / torch.linalg.inv(population).diagonal()
    return 1 - float(missed.sum() / population.trace())
