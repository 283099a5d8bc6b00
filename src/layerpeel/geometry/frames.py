r"""The target frames of neural collapse, as matrices whose rows are class vectors.

A *frame* here is a :math:`K \times p` matrix: row :math:`k` is the vector of class
:math:`k`. Only its Gram matrix matters to the theory; the rotation is arbitrary.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import at_least


def etf_cosine(num_classes: int) -> float:
    r"""Return the cosine between two vectors of a simplex ETF, :math:`-1/(K-1)`.

    Args:
        num_classes: The number of classes :math:`K \geq 2`.

    Raises:
        ValueError: If ``num_classes`` is below 2.
    """
    return -1 / (at_least("num_classes", num_classes, 2) - 1)


def simplex_etf(num_classes: int, width: int | None = None) -> Float64[Tensor, "K p"]:
    r"""Return a simplex equiangular tight frame with unit rows.

    .. math::
        M = \sqrt{\tfrac{K}{K-1}} \left(I_K - \tfrac{1}{K} 1 1^\top\right) P^\top ,
        \qquad \cos(m_j, m_k) = -\tfrac{1}{K-1} \quad (j \neq k)

    The largest angle that :math:`K` directions can have pairwise: the end of balanced
    training (Fang et al. 2021).

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        width: The dimension :math:`p \geq K - 1`; :math:`K` when omitted.

    Returns:
        The frame, with shape :math:`(K, p)`.

    Raises:
        ValueError: If ``num_classes`` is below 2 or ``width`` below ``K - 1``.

    Example:
        >>> frame = simplex_etf(3)
        >>> (frame @ frame.T).round(decimals=2).tolist()
        [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    at_least("num_classes", num_classes, 2)
    width = num_classes if width is None else at_least("width", width, num_classes - 1)
    eye = torch.eye(num_classes, dtype=torch.float64)
    centred = (eye - 1 / num_classes) * (num_classes / (num_classes - 1)) ** 0.5
    if width >= num_classes:
        return _pad(centred, width)
    # Rows live in the K-1 dimensional complement of the all-ones vector. A Householder
    # reflection takes that vector to the last axis, which can then be dropped exactly.
    axis = eye[-1] - torch.full_like(eye[-1], num_classes**-0.5)
    reflection = eye - 2 * torch.outer(axis, axis) / axis.square().sum()
    narrow: Tensor = (centred @ reflection)[:, :-1]
    return narrow


def orthogonal_frame(
    num_classes: int, width: int | None = None
) -> Float64[Tensor, "K p"]:
    r"""Return an orthonormal frame, the end of bias-free squared-error training.

    Args:
        num_classes: The number of classes :math:`K`.
        width: The dimension :math:`p \geq K`; :math:`K` when omitted.

    Returns:
        The frame, with shape :math:`(K, p)`.

    Raises:
        ValueError: If ``width`` is below ``num_classes``.
    """
    return general_orthogonal_frame([1.0] * num_classes, width)


def general_orthogonal_frame(
    norms: Sequence[float], width: int | None = None
) -> Float64[Tensor, "K p"]:
    r"""Return orthogonal class vectors of given lengths (GOF, Dang et al. 2023).

    Args:
        norms: The lengths of the :math:`K` vectors, zero for a collapsed class.
        width: The dimension :math:`p \geq K`; :math:`K` when omitted.

    Returns:
        The frame, with shape :math:`(K, p)`.

    Raises:
        ValueError: If a norm is negative or not finite, or ``width`` is too small.

    Example:
        >>> general_orthogonal_frame([3.0, 4.0], width=3).tolist()
        [[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]
    """
    lengths = torch.as_tensor(norms, dtype=torch.float64)
    if not bool((torch.isfinite(lengths) & (lengths >= 0)).all()):
        raise ValueError(f"`norms` must be finite and >= 0; got {lengths.tolist()}.")
    num_classes = at_least("the number of norms", len(lengths), 1)
    width = num_classes if width is None else at_least("width", width, num_classes)
    return _pad(torch.diag(lengths), width)


def _pad(frame: Tensor, width: int) -> Tensor:
    return torch.cat([frame, frame.new_zeros(len(frame), width - frame.shape[1])], 1)
