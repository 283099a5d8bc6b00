r"""Squared error without a bias: general orthogonal frames, for any counts and depth.

The optimal classifiers and class means are orthogonal, and aligned one to one:
:math:`Z = \operatorname{diag}(z_k)`. That is a theorem for every depth :math:`M`, any
weights :math:`\pi, \delta` and any width, by an argument that is short. Write
:math:`X = Z \operatorname{diag}(\delta) = A G`, with :math:`A` the product of the
layers, and :math:`\rho_k = \pi_k / \delta_k^2`.

1. For fixed :math:`A`, each column of :math:`G` is a ridge regression of its own, and
   the loss and its penalty, with :math:`S = A A^\top`, come to

   .. math::
       \sum_k \frac{\pi_k}{2} \left[\left(I + \tfrac{\rho_k}{\lambda_H} S\right)^{-1}
       \right]_{kk}
       = \sum_k \sum_i u_{ki}^2 \; \frac{\pi_k}{2}
       \left(1 + \tfrac{\rho_k}{\lambda_H} \sigma_i\right)^{-1}

   for eigenvalues :math:`\sigma_i` and orthonormal eigenvectors :math:`u_i` of
   :math:`S`. The penalty of the layers depends on the eigenvalues alone.
2. For fixed eigenvalues this is *linear* in :math:`u_{ki}^2`, a doubly stochastic
   matrix, so a permutation is optimal (Birkhoff): :math:`S` is diagonal. With it,
   everything separates over the classes.

The scalar program that is left, and why it must be compared with zero, is in
:mod:`layerpeel.program.closed.shrinkage`. Orthogonal nonnegative features exist, so the
solution is the same behind a ReLU.

References:
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data (Dang et
    | al., 2023), https://arxiv.org/abs/2301.00437: orthogonal frames and the equation;
    | the code published with it takes the root also where zero is better
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.class_level import ClassLevel
from layerpeel.program.closed._reach import checked_regulariser, require, squared_loss
from layerpeel.program.closed.shrinkage import ShrinkageProgram
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Solution, Status
from layerpeel.program.spectrum import BlockSpectrum


def solve_orthogonal_frames(program: ClassLevel, gap_tol: float) -> Solution:
    r"""Solve a squared-error program without a bias, for any counts and depth.

    The logits are :math:`Z = \operatorname{diag}(z_k)`. With a penalty and :math:`M`
    layers, :math:`\delta_k z_k = t_k^{M+1}` for the largest root of

    .. math::
        t^{2M} - \delta_k t^{M-1} + c \, \delta_k^2 / \pi_k = 0 ,

    where that has a smaller objective than zero, and zero elsewhere. With decay per
    sample, class :math:`k` is zero exactly when

    .. math::
        n_k \leq \frac{M^2}{(M-1)^{(M-1)/M}} \, N^{(M+1)/M}
        \Big(\lambda_H \prod_j \lambda_j\Big)^{1/M}
        \qquad (M = 1: \; N^2 \lambda_W \lambda_H) ,

    continuously for one layer, and for more with a jump from :math:`z_k = (M-1)/M`.
    Zero is a local minimum for every count then, where small initialisations can stay.
    Within a budget (one layer), :math:`z_k = \max(0, 1 - \mu \delta_k / \pi_k)`.

    A width below the number of nonzero classes keeps the classes of largest gain; of
    equal classes the first, although any projection of them would be as good.

    Args:
        program: The program; no bias.
        gap_tol: Not needed by a formula.

    Returns:
        The solution, with status ``CLOSED_FORM``. Only within a budget that has to be
        filled in fewer directions than it would take, and with weights :math:`\pi` not
        proportional to :math:`\delta^2`, is the status ``STATIONARY``: then the lower
        bound is that of the full width. ``stats["collapsed"]`` is the number of classes
        that are zero.

    Raises:
        ValueError: If the program is not of this form.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
    """
    squared_loss(program)
    require(program.ridge is None, "no bias", f"a bias with ridge {program.ridge}")
    regulariser = checked_regulariser(program)
    delta, K = program.feature_weights, program.num_classes
    width = K if program.width is None else program.width
    shrunk = ShrinkageProgram(program.weights, delta, width).solve(regulariser)
    spectrum = _diagonal(delta * shrunk.fractions)
    return Solution(
        Status.CLOSED_FORM if shrunk.proved else Status.STATIONARY,
        shrunk.certificate,
        SpectralFactors(spectrum, delta, regulariser.balance, regulariser.depth),
        torch.zeros_like(delta),
        {"collapsed": int((~shrunk.kept).sum())},
    )


def _diagonal(values: Float64[Tensor, " K"]) -> BlockSpectrum:
    """Return a diagonal matrix by its singular values."""
    kept = values > 0
    axes = torch.eye(len(values), dtype=torch.float64)[:, kept]
    groups = tuple((k,) for k in range(len(values)))
    return BlockSpectrum(groups, torch.zeros_like(values), values[kept], axes, axes)
