"""Slow, obviously right float64 references for every class-level program.

Everything is rebuilt from the raw numbers of a `ClassLevel` in plain numpy and CVXPY;
nothing of the package computes anything here. Columns of logits belong to classes.
"""

import cvxpy as cp
import numpy as np
import torch
from scipy.special import logsumexp

from layerpeel.program.class_level import ClassLevel, SoftmaxLoss, SquaredLoss
from layerpeel.program.regulariser import Regulariser


def make_program(
    counts,
    *,
    loss="cross_entropy",
    energy=None,
    decay=None,
    per="sample",
    class_weights=None,
    smoothing=0.0,
    scale=None,
    offset=None,
    margin=None,
    bias=None,
    nonnegative=False,
    width=None,
):
    """A program from raw numbers: `energy=(E_W, E_H)` or `decay=(..., lam_H)`.

    `bias` is None, "free" or a ridge; class weights and smoothing mix as in torch.
    """
    n = np.asarray(counts, dtype=float)
    K = len(n)
    w = np.ones(K) if class_weights is None else np.asarray(class_weights, dtype=float)
    own, shared = (1 - smoothing) * w, smoothing * w.mean()
    weights = n * (own + shared) / (n @ w)
    if energy is not None:
        E_W, E_H = energy
        delta = np.ones(K)
        regulariser = Regulariser(K * (E_W * E_H) ** 0.5, None, 1, (E_W / E_H) ** 0.5)
    else:
        c = np.prod(decay) ** (1 / len(decay))
        delta = np.sqrt(n) if per == "sample" else np.ones(K)
        regulariser = Regulariser(None, float(c), len(decay) - 1, float(decay[-1] / c))

    def vector(values, default):
        return torch.tensor(
            np.broadcast_to(default if values is None else values, K).copy(),
            dtype=torch.float64,
        )

    softmax = SoftmaxLoss(
        vector(scale, 1.0),
        vector(offset, 0.0),
        vector(margin, 1.0),
        vector(shared / (own + shared), None),
        vector(w / w.sum(), None),
    )
    return ClassLevel(
        vector(weights, None),
        vector(delta, None),
        softmax if loss == "cross_entropy" else SquaredLoss(),
        regulariser,
        {None: None, "free": 0.0}.get(bias, bias),
        nonnegative,
        width,
    )


def objective(program, logits, bias=None):
    """Loss, ridge and, where there is one, the penalty of free features.

    Of nonnegative features, or of given factors, the penalty is `factor_penalty`.
    """
    X = np.asarray(logits) * program.feature_weights.numpy()
    value = data_term(program, logits, bias)
    if program.regulariser.multiplier is None:
        return value
    M, c = program.regulariser.depth, program.regulariser.multiplier
    return value + (M + 1) / 2 * c * np.sum(_singular_values(X) ** (2 / (M + 1)))


def data_term(program, logits, bias=None):
    """The weighted loss and the ridge, class by class."""
    K = program.num_classes
    b = np.zeros(K) if bias is None else np.asarray(bias)
    pi = program.weights.numpy()
    loss = sum(pi[k] * column_loss(program, logits, b, k) for k in range(K))
    return float(loss + (program.ridge or 0.0) / 2 * b @ b)


def column_loss(program, logits, b, k):
    z = np.asarray(logits)[:, k] + b
    own = np.eye(len(b))[k]
    if isinstance(program.loss, SquaredLoss):
        return np.sum((z - own) ** 2) / 2
    loss = program.loss
    a = loss.scale.numpy() * z / loss.margin[k].item() + loss.offset.numpy()
    eps = loss.smoothing[k].item()
    target = (1 - eps) * own + eps * loss.common.numpy()
    return logsumexp(a) - target @ a


def nuclear_norm(program, logits):
    """The nuclear norm that a budget bounds by `program.regulariser.budget`."""
    return np.linalg.norm(np.asarray(logits) * program.feature_weights.numpy(), "nuc")


def factor_penalty(program, classifiers, class_means):
    """The penalty of rows `w_k` and `h_k`: least over all ways to split the layers."""
    M, c = program.regulariser.depth, program.regulariser.multiplier
    s, delta = program.regulariser.balance, program.feature_weights.numpy()
    singular = _singular_values(np.asarray(classifiers))
    features = np.asarray(class_means) * delta[:, None]
    layers = M / 2 * c * s ** (-1 / M) * np.sum(singular ** (2 / M))
    return float(layers + c * s / 2 * np.sum(features**2))


def _singular_values(matrix):
    """Without rounding noise: the root of 1e-16 is no small number."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return values[values > 1e-14 * values[0]]


def cvxpy_solve(program, solver=cp.CLARABEL, **options):
    """Solve a one-layer program with free features and any width: a convex program.

    Returns the optimal value, the logits (K, K) and the bias (K,).
    """
    assert program.regulariser.depth == 1
    assert not program.nonnegative
    K = program.num_classes
    pi, delta = program.weights.numpy(), program.feature_weights.numpy()
    # The variable is X = Z diag(delta): its nuclear norm needs no scaling.
    X, b = cp.Variable((K, K)), cp.Variable(K) if program.ridge is not None else None
    shift = np.zeros(K) if b is None else b
    cost = sum(
        pi[k] * _column_cost(program, X[:, k] / delta[k] + shift, k) for k in range(K)
    )
    if program.ridge:
        cost = cost + program.ridge / 2 * cp.sum_squares(b)
    constraints = []
    if program.regulariser.budget is None:
        cost = cost + program.regulariser.multiplier * cp.normNuc(X)
    else:
        constraints = [cp.normNuc(X) <= program.regulariser.budget]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    problem.solve(solver=solver, **options)
    bias = np.zeros(K) if b is None else b.value
    return float(problem.value), X.value / delta, bias


def _column_cost(program, z, k):
    own = np.eye(program.num_classes)[k]
    if isinstance(program.loss, SquaredLoss):
        return cp.sum_squares(z - own) / 2
    loss = program.loss
    a = cp.multiply(loss.scale.numpy() / loss.margin[k].item(), z) + loss.offset.numpy()
    eps = loss.smoothing[k].item()
    target = (1 - eps) * own + eps * loss.common.numpy()
    return cp.log_sum_exp(a) - target @ a
