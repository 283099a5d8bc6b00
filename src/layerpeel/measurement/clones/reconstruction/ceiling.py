r"""How well any neurons could reconstruct a layer: what each shares with all others.

Clones carry the same information plus independent noise, and no chunk reconstructs the
noise of neurons outside it. A chunk that holds all the information reaches this ceiling,
and not :math:`R^2 = 1`.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: clones
"""

from __future__ import annotations

import torch

from layerpeel._checks import undefined
from layerpeel._tolerances import EPS, covariance_rank_tolerance
from layerpeel.measurement.clones.reconstruction.reconstruction import constant_neurons
from layerpeel.measurement.statistics.covariance import Covariance


def reconstruction_ceiling(
    covariance: Covariance, held_out: Covariance | None = None, *, eps: float = EPS
) -> float:
    r"""Return the share of variance that each neuron shares with all the others.

    Each is regressed on the :math:`W - 1` others. With the inverse :math:`P` of the
    scatter, what neuron :math:`j` misses is :math:`\sum_i P_{ij} h_i / P_{jj}`, so that
    all regressions come from one factorisation:

    .. math::
        1 - \frac{\sum_j (P G P)_{jj} / P_{jj}^2}{\mathrm{tr}\, G} .

    Args:
        covariance: What the regressions are fitted to.
        held_out: Other data to score them on, about the mean of the former.
        eps: The unit of the dtype that features were computed in. Combinations of
            neurons that vary less than rounding are shared in full.

    Returns:
        The share, at most 1; in sample too large by about :math:`W / N`. NaN with a
        warning where nothing varies.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0]).double()
        >>> copies = torch.stack([x, x], dim=1)
        >>> round(reconstruction_ceiling(Covariance.of(copies)), 9)
        1.0
    """
    scored = covariance if held_out is None else held_out
    varies = ~constant_neurons(covariance)
    total = float(scored.scatter.diagonal()[~constant_neurons(scored)].sum())
    if not bool(varies.any()) or total <= 0:
        return undefined(
            "What neurons share is undefined (NaN): none of them varies over the "
            f"{int(scored.count)} samples."
        )
    shift = scored.mean - covariance.mean
    second = torch.addr(scored.scatter, shift, shift * scored.count)
    scale = covariance.scatter.diagonal()[varies].rsqrt()
    fitted = _block(covariance.scatter, varies, scale)
    least = covariance_rank_tolerance(covariance.width, eps) ** 2
    inverse = torch.cholesky_inverse(_factor(fitted, least))
    other = _block(second, varies, scale)
    missed = (inverse * (other @ inverse)).sum(0) / inverse.diagonal().square()
    constant = float(second.diagonal()[~varies].sum())
    return 1 - (float((missed / scale.square()).sum()) + constant) / total


def _factor(matrix: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the Cholesky factor with a ridge on the scale of rounding.

    What is left of a copy is then rounding, too. Of many copies the rounding is that of
    the largest eigenvalue, and the ridge grows until it is above it.
    """
    while True:
        ridged = matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype)
        factor, failed = torch.linalg.cholesky_ex(ridged)
        if not int(failed):
            return torch.as_tensor(factor)
        ridge *= 10


def _block(
    matrix: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the rows and columns that vary, each in units of its deviation."""
    return scale[:, None] * matrix[rows][:, rows] * scale
