"""Balanced classes: a simplex equiangular tight frame, in closed form."""

from __future__ import annotations

import torch

from layerpeel.program.spectrum import BlockSpectrum


def solve_balanced(num_classes: int, tau: float) -> BlockSpectrum:
    r"""Return the optimal logits of the Layer-Peeled Model for equal counts.

    .. math::
        Z = \frac{\tau}{K - 1} \left(I - \tfrac{1}{K} J\right), \qquad
        w_k^\top h_j = \sqrt{E_W E_H} \, \frac{K \delta_{kj} - 1}{K - 1}

    for every energy: the classifiers form a simplex equiangular tight frame, and the
    features are aligned with them.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        tau: The budget :math:`\tau = K \sqrt{E_W E_H}`.

    Returns:
        The logits.
    """
    spread = torch.tensor([tau / (num_classes - 1)], dtype=torch.float64)
    none = spread.new_zeros(1, 0)
    return BlockSpectrum((tuple(range(num_classes)),), spread, none[0], none, none)
