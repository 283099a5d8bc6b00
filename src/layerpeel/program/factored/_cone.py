r"""The norm dual to nonnegative features, bounded from above.

For a symmetric :math:`A`, the largest :math:`g^\top A g` over nonnegative unit vectors
:math:`g` is at most :math:`\lambda_{\max}(A + N)` for every entrywise nonnegative
:math:`N`, since :math:`g^\top N g \geq 0`. The least such bound is exact for matrices
of order up to four (Diananda, 1962: a copositive matrix of that order is a positive
semidefinite one plus a nonnegative one), and was exact to rounding at all optima of
programs of more classes that were tried.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from layerpeel._tolerances import EPS
from layerpeel.program.factored._data_term import Matrix, Vector

_STEPS = 10_000


def cone_maximum(matrix: Matrix, target: float) -> float:
    r"""Return a bound on the largest :math:`g^\top A g`, as close to a target as can be.

    Args:
        matrix: The symmetric :math:`A`, with shape :math:`(K, K)`.
        target: The value that the bound should have, above zero: one that a
            nonnegative unit vector attains.
    """
    simple = np.maximum(matrix, 0.0)
    bound = _largest(simple)
    if bound <= target * (1 + 100 * EPS):
        return bound
    scaled = matrix / target
    raised = scaled + _raise(scaled)
    return min(bound, target * _largest(raised))


def _raise(matrix: Matrix) -> Matrix:
    r"""Return :math:`N \geq 0` such that :math:`I - A - N` is nearly a square.

    The square :math:`L L^\top` is moved until what remains of :math:`I - A` is
    nonnegative, by least squares in its negative entries. A result that was not reached
    is a weaker bound, not a wrong one.
    """
    size = len(matrix)
    room = np.eye(size) - matrix

    def lack(x: Vector) -> tuple[float, Vector]:
        root = x.reshape(size, size)
        missing = np.minimum(room - root @ root.T, 0.0)
        return float(np.square(missing).sum() / 2), (-2 * missing @ root).ravel()

    values, vectors = np.linalg.eigh(np.eye(size) - np.maximum(matrix, 0.0))
    start = vectors * np.sqrt(np.maximum(values, 1e-4))
    found = minimize(
        lack,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": _STEPS,
            "maxfun": 2 * _STEPS,
            "maxcor": 30,
            "ftol": 0.0,
            "gtol": 0.0,
        },
    )
    root = found.x.reshape(size, size)
    nonnegative: Matrix = np.maximum(room - root @ root.T, 0.0)
    return nonnegative


def _largest(matrix: Matrix) -> float:
    return float(np.linalg.eigvalsh(matrix)[-1])
