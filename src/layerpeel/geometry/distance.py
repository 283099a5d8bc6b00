r"""The distance between two geometries, whatever their scale.

References:
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: normalised Gram distance
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: cosines
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import ShapeError, undefined
from layerpeel.geometry.geometry import Geometry, off_diagonal


@dataclass(frozen=True)
class GeometryDistance:
    r"""How far one geometry is from another; all zero for equal shapes.

    Attributes:
        classifier_gram: :math:`\|A/\|A\|_F - B/\|B\|_F\|_F` of the classifier Gram
            matrices, in :math:`[0, 2]`.
        feature_gram: The same for the Gram matrices of the class means.
        logits: The same for the logits of the class means.
        classifier_cosine: Mean absolute difference of the pairwise classifier cosines.
        feature_cosine: Mean absolute difference of the pairwise class-mean cosines.
    """

    classifier_gram: float
    feature_gram: float
    logits: float
    classifier_cosine: float
    feature_cosine: float


def geometry_distance(first: Geometry, second: Geometry) -> GeometryDistance:
    r"""Return the distance between two geometries of the same classes.

    The Gram distances are taken after scaling to unit Frobenius norm, so that neither
    units nor the overall size of the weights matter. Pairs whose cosine is undefined in
    either geometry are left out of the cosine means. Entries that are NaN in either (a
    class that was never seen) are left out of the Gram distances, and of their norms.

    Args:
        first: A geometry of :math:`K` classes.
        second: Another one of the same :math:`K` classes.

    Returns:
        The distance, symmetric in its arguments.

    Raises:
        ShapeError: If the numbers of classes differ.

    Example:
        >>> from layerpeel import Geometry, simplex_etf
        >>> frame = simplex_etf(3)
        >>> small, large = Geometry.of(frame, frame), Geometry.of(5 * frame, frame)
        >>> round(geometry_distance(small, large).classifier_gram, 12)
        0.0
    """
    if first.num_classes != second.num_classes:
        raise ShapeError(
            "Both geometries must have the same number of classes; got "
            f"{first.num_classes} and {second.num_classes}."
        )
    return GeometryDistance(
        classifier_gram=_matrix_distance(first.classifier_gram, second.classifier_gram),
        feature_gram=_matrix_distance(first.feature_gram, second.feature_gram),
        logits=_matrix_distance(first.logits, second.logits),
        classifier_cosine=_cosine_distance(
            first.classifier_cosines, second.classifier_cosines
        ),
        feature_cosine=_cosine_distance(first.feature_cosines, second.feature_cosines),
    )


def _matrix_distance(a: Float64[Tensor, "K K"], b: Float64[Tensor, "K K"]) -> float:
    seen = ~(a.isnan() | b.isnan())
    x, y = a[seen], b[seen]
    if not (bool(x.any()) and bool(y.any())):
        return undefined(
            "The distance to a geometry of zero vectors is undefined (NaN)."
        )
    return float(torch.linalg.vector_norm(x / x.norm() - y / y.norm()))


def _cosine_distance(a: Float64[Tensor, "K K"], b: Float64[Tensor, "K K"]) -> float:
    differences = (off_diagonal(a) - off_diagonal(b)).abs()
    if bool(differences.isnan().all()):
        return undefined(
            "The distance of cosines is undefined (NaN): no pair has both."
        )
    return float(differences.nanmean())
