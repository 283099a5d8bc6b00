r"""NC3, self-duality: classifiers and class means become the same up to scale.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined


def nc3(
    classifiers: Float64[Tensor, "K d"], class_means: Float64[Tensor, "K d"]
) -> float:
    r"""Return :math:`\| W/\|W\|_F - M/\|M\|_F \|_F`, zero for dual matrices.

    Args:
        classifiers: Rows :math:`w_k`, centred as wanted, with shape :math:`(K, d)`.
        class_means: Class means, centred as wanted, with shape :math:`(K, d)`. Classes
            whose row has NaN are left out of both matrices.

    Returns:
        The distance, between 0 and 2; NaN with a warning when a matrix is zero.

    Example:
        >>> from layerpeel import simplex_etf
        >>> round(nc3(3 * simplex_etf(4), simplex_etf(4)), 12)
        0.0
    """
    present = ~class_means.isnan().any(1)
    w, m = classifiers[present], class_means[present]
    if not (bool(w.any()) and bool(m.any())):
        return undefined("NC3 is undefined (NaN): classifiers or class means are zero.")
    return float(torch.linalg.matrix_norm(w / w.norm() - m / m.norm()))
