"""Slow, obviously right float64 references for the Layer-Peeled Model."""

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import entr, xlog1py


def counts_of(majority, minority, ratio):
    return [float(ratio)] * majority + [1.0] * minority


def budget(num_classes, energy):
    return num_classes * np.sqrt(energy[0] * energy[1])


def others(logits):
    """Odds of every other class against the own one, column by column."""
    logits = np.asarray(logits)
    odds = np.exp(logits - np.diag(logits))
    return odds * ~np.eye(len(odds), dtype=bool)


def objective(logits, counts):
    weights = np.asarray(counts) / np.sum(counts)
    return float(weights @ np.log1p(others(logits).sum(axis=0)))


def residual(logits):
    """Softmax minus identity. 1 - p would lose the digits of a small remainder."""
    odds = others(logits)
    off = odds / (1 + odds.sum(axis=0))
    return off - np.diag(off.sum(axis=0))


def lower_bound(logits, counts, tau):
    """Maximise the dual over the mixing weight, densely, entry by entry."""
    weights = np.asarray(counts) / np.sum(counts)
    gradient = residual(logits)
    norm = np.linalg.norm(gradient * weights, 2)
    off = gradient * ~np.eye(len(weights), dtype=bool)
    rest = off.sum(axis=0)

    def dual(c):
        entropy = entr(c * off).sum(axis=0) - xlog1py(1 - c * rest, -c * rest)
        return float(weights @ entropy - tau * c * norm)

    best = minimize_scalar(
        lambda c: -dual(c), bounds=(0, 1), method="bounded", options={"xatol": 1e-12}
    )
    return max(dual(1.0), dual(best.x))


def solve_sdp(counts, energy):
    """The 2K x 2K semidefinite program of the paper; its value and Gram matrix."""
    K = len(counts)
    weights = np.asarray(counts) / np.sum(counts)
    gram = cp.Variable((2 * K, 2 * K), PSD=True)  # features first, then classifiers
    losses = [
        weights[k] * (cp.log_sum_exp(gram[K:, k]) - gram[K + k, k]) for k in range(K)
    ]
    constraints = [
        cp.trace(gram[K:, K:]) <= K * energy[0],
        cp.trace(gram[:K, :K]) <= K * energy[1],
    ]
    problem = cp.Problem(cp.Minimize(sum(losses)), constraints)
    problem.solve(solver=cp.CLARABEL)
    return problem.value, gram.value


def solve_nuclear(counts, energy):
    """The same program in the logits alone; its value and the logits."""
    K = len(counts)
    weights = np.asarray(counts) / np.sum(counts)
    logits = cp.Variable((K, K))
    losses = [
        weights[k] * (cp.log_sum_exp(logits[:, k]) - logits[k, k]) for k in range(K)
    ]
    problem = cp.Problem(
        cp.Minimize(sum(losses)), [cp.normNuc(logits) <= budget(K, energy)]
    )
    problem.solve(solver=cp.CLARABEL)
    return problem.value, logits.value


def solve_factors(counts, energy, width, generator):
    """Minimise over the factors themselves from a random start, on both spheres."""
    K = len(counts)
    weights = np.asarray(counts) / np.sum(counts)
    radii = np.sqrt(K * energy[0]), np.sqrt(K * energy[1])

    def unpack(x):
        parts = x.reshape(2, K, width)
        norms = [np.linalg.norm(part) for part in parts]
        return (
            parts,
            norms,
            [r * p / n for r, p, n in zip(radii, parts, norms, strict=True)],
        )

    def value_and_gradient(x):
        parts, norms, (W, H) = unpack(x)
        logits = W @ H.T
        G = residual(logits) * weights
        free = [G @ H, G.T @ W]
        # Through the normalisation: drop the radial part, rescale.
        gradient = [
            r / n * (g - p / n * np.sum(g * p / n))
            for r, n, p, g in zip(radii, norms, parts, free, strict=True)
        ]
        return objective(logits, counts), np.concatenate([g.ravel() for g in gradient])

    start = generator.standard_normal(2 * K * width)
    result = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-11},
    )
    W, H = unpack(result.x)[2]
    return result.fun, W, H


def mean_cosine(gram):
    scale = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(scale, scale)
    return float(cosines[~np.eye(len(gram), dtype=bool)].mean())
