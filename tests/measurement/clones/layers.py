"""Layers of neurons to test with, each as rows of features in float64."""

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def correlated(samples=80, width=9, seed=0):
    """A few directions plus noise, far from the origin, of different scales."""
    mixing = normal(3, width, seed=seed + 100)
    noise = normal(samples, width, seed=seed + 200)
    scales = torch.logspace(-2, 2, width, dtype=torch.float64)
    mean = normal(width, seed=seed + 300) * 10
    return (normal(samples, 3, seed=seed) @ mixing + 0.5 * noise) * scales + mean


def degenerate(samples=80, seed=0):
    """Neurons 0 to 3 are independent; then a copy, a sum, a constant and a dead one."""
    base = normal(samples, 4, seed=seed)
    ones = torch.ones(samples, 1, dtype=torch.float64)
    total = base[:, 1:2] - 2 * base[:, 2:3] + 3
    other = base[:, 3:4] + normal(samples, 1, seed=seed + 1)
    return torch.cat([base, base[:, :1], total, 0.1 * ones, 0 * ones, other], dim=1)


def least_squares(fitted, chunk, scored):
    """Predictions of all neurons by the regression of least norm, on the data."""
    mean = fitted.mean(0)
    centred = fitted - mean
    inverse = torch.linalg.pinv(centred[:, chunk], rtol=1e-11)
    return (scored - mean)[:, chunk] @ (inverse @ centred) + mean
