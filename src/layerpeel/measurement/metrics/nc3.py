r"""NC3, self-duality: classifiers and class means become the same up to scale.

Three measures are in use. :func:`nc3` compares the matrices, each scaled to unit norm as
a whole, or row by row. :func:`duality_cosines` has one angle per class.
:func:`nc3_product` compares the logits of the class means with those of a frame, which
is duality and NC2 in one.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186: matrices
    | Linguistic Collapse: Neural Collapse in (Large) Language Models
    | (Wu & Papyan, 2024), https://arxiv.org/abs/2405.17767: rows
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: products
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of, undefined
from layerpeel.measurement.metrics.directions import directions, unit_scaled
from layerpeel.measurement.metrics.frame_distance import (
    FRAMES,
    frame_target,
    product_distance,
)

NORMALISATIONS: Mapping[str, str] = MappingProxyType(
    {
        "matrix": "each matrix to unit Frobenius norm: unequal lengths of classes count",
        "rows": "each vector to unit length: only the angles count, every class once",
    }
)
"""How scale is removed from classifiers and class means, by name."""


def nc3(
    classifiers: Float64[Tensor, "K d"],
    class_means: Float64[Tensor, "K d"],
    normalisation: str = "matrix",
) -> float:
    r"""Return the distance of classifiers and class means, zero when they are dual.

    .. math::
        \Big\| \frac{W}{\|W\|_F} - \frac{M}{\|M\|_F} \Big\|_F \quad\text{or}\quad
        \frac{1}{K} \sum_k \Big\| \frac{w_k}{\|w_k\|} - \frac{m_k}{\|m_k\|} \Big\|

    Args:
        classifiers: Rows :math:`w_k`, centred as wanted, with shape :math:`(K, d)`.
        class_means: Class means, centred as wanted, with shape :math:`(K, d)`. Classes
            whose row has NaN are left out of both matrices.
        normalisation: A key of ``NORMALISATIONS``. Matrices by default, the measure of
            Papyan et al. (2020) and of most code; it also sees lengths that differ.

    Returns:
        The distance, between 0 and 2; NaN with a warning when a matrix is zero or, for
        rows, when a vector vanished.

    Raises:
        ValueError: If the normalisation is unknown.

    Example:
        >>> from layerpeel import simplex_etf
        >>> round(nc3(3 * simplex_etf(4), simplex_etf(4)), 12)
        0.0
        >>> lengths = torch.tensor([[1.0], [2.0], [3.0]]).double()
        >>> round(nc3(lengths * simplex_etf(3), simplex_etf(3), "rows"), 12)
        0.0
    """
    one_of("normalisation", normalisation, NORMALISATIONS)
    present = ~class_means.isnan().any(1)
    w, m = (unit_scaled(v[present])[0] for v in (classifiers, class_means))
    if not (bool(w.any()) and bool(m.any())):
        return undefined("NC3 is undefined (NaN): classifiers or class means are zero.")
    if normalisation == "matrix":
        return float(torch.linalg.matrix_norm(w / w.norm() - m / m.norm()))
    distances = (directions(w) - directions(m)).norm(dim=1)
    if bool(distances.isnan().any()):
        return undefined(
            "NC3 by rows is undefined (NaN): a classifier or class mean has vanished, "
            "and has no direction."
        )
    return float(distances.mean())


def duality_cosines(
    classifiers: Float64[Tensor, "K d"], class_means: Float64[Tensor, "K d"]
) -> Float64[Tensor, " K"]:
    """Return the cosine of each class's classifier and mean, one when they are dual.

    Args:
        classifiers: As for :func:`nc3`.
        class_means: As for :func:`nc3`.

    Returns:
        The cosines, with shape :math:`(K,)`; NaN, without a warning, for classes without
        samples, and where a vector vanished.

    Example:
        >>> w = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).double()
        >>> m = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()
        >>> duality_cosines(w, m).tolist()
        [1.0, nan]
    """
    cosines: Tensor = (directions(classifiers) * directions(class_means)).sum(1)
    return cosines.clamp(-1, 1)


def nc3_product(
    classifiers: Float64[Tensor, "K d"],
    class_means: Float64[Tensor, "K d"],
    frame: str = "simplex",
) -> float:
    r"""Return :math:`\| W M^\top/\|W M^\top\|_F - T/\|T\|_F \|_F` for a frame.

    :math:`T` is :math:`I - J/K` for a simplex and :math:`I` for an orthogonal frame
    (Dang et al. 2023).

    Args:
        classifiers: As for :func:`nc3`; uncentred for an orthogonal frame.
        class_means: As for :func:`nc3`; uncentred for an orthogonal frame.
        frame: A key of ``FRAMES``.

    Returns:
        The distance, between 0 and 2; NaN with a warning for fewer than two classes, or
        when the product is zero.

    Raises:
        ValueError: If the frame is unknown.

    Example:
        >>> from layerpeel import simplex_etf
        >>> round(nc3_product(3 * simplex_etf(4), simplex_etf(4)), 12)
        0.0
    """
    one_of("frame", frame, FRAMES)
    present = ~class_means.isnan().any(1)
    w, m = classifiers[present], class_means[present]
    if len(w) > 1:
        distance = product_distance(w, m, *frame_target(frame, len(w)))
        if not math.isnan(distance):
            return distance
    return undefined(
        "The product form of NC3 is undefined (NaN): it needs two classes, and logits "
        "that are not all zero."
    )
