"""The squared error against one-hot labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MSE:
    r"""Half the squared distance to the one-hot label, :math:`\frac12 \|z - e_y\|^2`.

    Averaged over the :math:`N` samples. ``torch.nn.MSELoss`` averages over all
    :math:`N K` entries and has no half: to describe a network trained with it,
    multiply every weight decay by :math:`K / 2`.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437

    Example:
        >>> MSE()
        MSE()
    """
