r"""NC2: class vectors of equal length at equal, largest possible angles.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186: the first measures
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: the Gram distance
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel.geometry import Geometry, off_diagonal
from layerpeel.measurement.statistics.conventions import seen


@dataclass(frozen=True)
class NC2:
    r"""How far :math:`K` vectors are from a simplex equiangular tight frame.

    All but the mean cosine are zero for an exact frame.

    Attributes:
        equinorm: Standard deviation of the norms over their mean.
        mean_cosine: Mean cosine between different classes.
        equiangularity: Standard deviation of these cosines.
        angle: Mean of :math:`|\cos + 1/(K-1)|`: the distance to the largest angle.
        gram: :math:`\| G/\|G\|_F - (I - J/K)/\sqrt{K-1} \|_F` for the Gram matrix
            :math:`G` and the all-ones matrix :math:`J`.
    """

    equinorm: float
    mean_cosine: float
    equiangularity: float
    angle: float
    gram: float


def nc2(vectors: Float64[Tensor, "K p"], correction: int = 0) -> NC2:
    """Measure how far vectors are from a simplex equiangular tight frame.

    Args:
        vectors: One vector per class, centred as wanted, with shape :math:`(K, p)`.
            Rows with NaN (classes without samples) are left out, also of :math:`K`.
        correction: What is subtracted from the number of norms or cosines in standard
            deviations. 0, the default, since the classes are all there is and no
            sample of more; 1 is the default of ``torch.std``.

    Returns:
        The measures; NaN with a warning where vectors vanish and have no angle, and for
        fewer than two classes.

    Example:
        >>> from layerpeel import simplex_etf
        >>> deviation = nc2(simplex_etf(4))
        >>> round(deviation.equinorm, 12), round(deviation.angle, 12)
        (0.0, 0.0)
    """
    rows = seen(vectors)
    if len(rows) < 2 or not bool(rows.any()):
        nan = undefined("NC2 is undefined (NaN): it needs two classes with a vector.")
        return NC2(nan, nan, nan, nan, nan)
    geometry = Geometry.of(rows, rows)
    norms, cosines = (
        geometry.classifier_norms,
        off_diagonal(geometry.classifier_cosines),
    )
    if bool(cosines.isnan().any()):
        undefined("NC2 angles are undefined (NaN): some class vectors have vanished.")
    return NC2(
        equinorm=float(norms.std(correction=correction) / norms.mean()),
        mean_cosine=float(cosines.mean()),
        equiangularity=float(cosines.std(correction=correction)),
        angle=float((cosines + 1 / (len(rows) - 1)).abs().mean()),
        gram=_gram_distance(geometry.classifier_gram),
    )


def _gram_distance(gram: Float64[Tensor, "K K"]) -> float:
    classes = len(gram)
    # The Frobenius norm of I - J/K is sqrt(K - 1).
    target = (torch.eye(classes).to(gram) - 1 / classes) / (classes - 1) ** 0.5
    return float(torch.linalg.matrix_norm(gram / gram.norm() - target))
