r"""A lower bound on every one-layer program, evaluated at any point.

By convexity of the loss, for every matrix :math:`Y = (y_1, \dots, y_K)` of the form
:math:`y_k = \pi_k \nabla \ell(a_k, k)`,

.. math::
    \sum_k \pi_k \ell(z_k + b, k) \geq \langle Y, Z + b 1^\top \rangle
    - \sum_k \pi_k \ell^* (y_k / \pi_k) .

The least of the first term over :math:`Z`, with the penalty or within the budget, is
known by the norm dual to the least energy of factors :math:`Z = W \bar H`: the spectral
norm for free features, and :math:`\max \|Y g\|` over nonnegative unit vectors
:math:`g` for nonnegative ones. No width is assumed, so the bound holds for all.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from layerpeel.program.class_level import ClassLevel
from layerpeel.program.factored._cone import cone_maximum
from layerpeel.program.factored._data_term import DataTerm, Matrix, Vector

_NEWTON_STEPS = 20

# A free bias needs slopes that cancel. This share of them is rounding.
_CANCELLED = 1e-13


def lower_bound(
    program: ClassLevel, logits: Matrix, bias: Vector, features: Matrix
) -> float:
    """Return the bound from the slopes at a point, mixed with zero for the best value.

    With several layers, or where no bias cancels the slopes, it is that of zero slopes:
    the least of the loss alone.
    """
    data_term = DataTerm(program)
    residual = data_term.columns.losses(logits + bias[:, None])[1]
    if program.ridge == 0:
        residual = _cancelled(data_term, logits, bias)
    trivial = _dual_value(program, residual, 0.0, 0.0)
    if program.regulariser.depth > 1 or not np.isfinite(residual).all():
        return trivial
    slopes = data_term.columns.slopes(residual) * program.weights.numpy()
    if program.ridge == 0 and _imbalance(slopes) > _CANCELLED:
        return trivial
    norm = _dual_norm(program, slopes / program.feature_weights.numpy(), features)
    multiplier = program.regulariser.multiplier
    most = 1.0 if multiplier is None or norm <= multiplier else multiplier / norm
    best = minimize_scalar(
        lambda share: -_dual_value(program, residual, share, norm),
        bounds=(0.0, most),
        method="bounded",
        options={"xatol": 1e-12},
    )
    shares = 0.0, float(best.x), most
    return max(_dual_value(program, residual, share, norm) for share in shares)


def _dual_norm(program: ClassLevel, slope: Matrix, features: Matrix) -> float:
    """Return the most that a unit of feature energy can gain, or a bound on it.

    Args:
        program: The program.
        slope: The gradient in X, with shape (K, K).
        features: The weighted features, one per column, with shape (p, K); what they
            gain per unit is the value to prove where they must be nonnegative.
    """
    if not program.nonnegative:
        return float(np.linalg.norm(slope, 2))
    # Squares of slopes underflow where their ratios do not.
    size = float(np.abs(slope).max())
    if size == 0:
        return 0.0
    gram = (slope / size).T @ (slope / size)
    energies = np.square(features).sum(axis=1)
    gains = np.einsum("pk,kl,pl->p", features, gram, features)
    attained = np.max(gains[energies > 0] / energies[energies > 0], initial=0.0)
    target = max(float(attained), float(np.diagonal(gram).max()))
    allowed = (program.regulariser.multiplier or 0.0) / size
    return size * float(cone_maximum(gram, max(target, allowed**2)) ** 0.5)


def _dual_value(
    program: ClassLevel, residual: Matrix, share: float, norm: float
) -> float:
    """Return the bound of a share of the slopes; concave in the share."""
    data_term = DataTerm(program)
    value = data_term.weights @ data_term.columns.conjugates(residual, share)
    if program.ridge:
        total = data_term.columns.slopes(residual) @ data_term.weights * share
        value -= total @ total / (2 * program.ridge)
    if program.regulariser.budget is not None:
        value -= program.regulariser.budget * share * norm
    return float(value)


def _cancelled(data_term: DataTerm, logits: Matrix, bias: Vector) -> Matrix:
    """Return the residual at the best free bias, by Newton steps from the given one."""
    columns = data_term.columns
    for _ in range(_NEWTON_STEPS):
        residual = columns.losses(logits + bias[:, None])[1]
        slopes = columns.slopes(residual) * data_term.weights
        if _imbalance(slopes) <= _CANCELLED:
            break
        curvature = sum(
            weight * columns.curvature(residual, column)
            for column, weight in enumerate(data_term.weights)
        )
        bias = bias - np.linalg.lstsq(curvature, slopes.sum(axis=1), rcond=None)[0]
    return residual


def _imbalance(slopes: Matrix) -> float:
    """Return how far slopes are from cancelling, as a share of their size."""
    size = float(np.abs(slopes).sum())
    return float(np.abs(slopes.sum(axis=1)).sum()) / size if size else 0.0
