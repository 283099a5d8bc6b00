r"""Squared error with a bias and a budget that is larger than it need be.

Logits that reproduce the labels cost nothing: :math:`Z + b 1^\top = I`. With a free
bias the least nuclear norm of :math:`X = (I - b 1^\top) \operatorname{diag}(\delta)` is
that of :math:`\operatorname{diag}(\delta) (I - u u^\top)`, :math:`u = \delta /
\|\delta\|`, because :math:`\sigma_i(X) \geq \sigma_i(X (I - u u^\top))`; it is attained
at :math:`b = \delta^2 / \|\delta\|^2`. With a ridge, the bias has to be zero. A budget
of at least that norm is not spent, and the objective is zero.
"""

from __future__ import annotations

import torch

from layerpeel.program.class_level import ClassLevel, SquaredLoss
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.solution import Certificate, Solution, Status
from layerpeel.program.spectrum import BlockSpectrum


def interpolates(program: ClassLevel) -> bool:
    """Whether squared error with a bias can be zero within the budget."""
    budget = program.regulariser.budget
    if not isinstance(program.loss, SquaredLoss) or budget is None:
        return False
    if program.ridge is None or program.nonnegative:
        return False
    spectrum, _ = _interpolant(program)
    fits = program.width is None or program.width >= spectrum.rank
    return fits and spectrum.nuclear_norm <= budget


def solve_interpolation(program: ClassLevel, gap_tol: float) -> Solution:
    """Return logits and bias that reproduce the labels, with the least norm.

    Args:
        program: The program, as :func:`interpolates` asks.
        gap_tol: Not needed by a formula.

    Returns:
        The solution, with status ``CLOSED_FORM`` and objective zero, which no loss can
        go below.
    """
    spectrum, bias = _interpolant(program)
    factors = SpectralFactors(
        spectrum, program.feature_weights, program.regulariser.balance
    )
    return Solution(Status.CLOSED_FORM, Certificate(0.0, 0.0), factors, bias, {})


def _interpolant(program: ClassLevel) -> tuple[BlockSpectrum, torch.Tensor]:
    delta = program.feature_weights
    bias = torch.zeros_like(delta)
    if program.ridge == 0:
        bias = delta.square() / delta.square().sum()
    X = torch.diag(delta) - torch.outer(bias, delta)
    U, S, Vt = torch.linalg.svd(X)
    keep = len(S) * torch.finfo(S.dtype).eps * S[0] < S
    singles = tuple((k,) for k in range(len(delta)))
    spectrum = BlockSpectrum(
        singles, torch.zeros_like(delta), S[keep], U[:, keep], Vt[keep].T
    )
    return spectrum, bias
