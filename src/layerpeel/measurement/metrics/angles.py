r"""Angles of a last layer against those of any predicted geometry.

A prediction is a :class:`~layerpeel.geometry.Geometry`: a simplex, an orthogonal frame,
the solution of a peeled program. It is known up to rotation, so what is compared is
angles within the classifiers, within the class means, and between the two.
:func:`principal_angles` compares the spaces that classifiers and class means span.

References:
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: predicted Gram matrices
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
    | Numerical methods for computing angles between linear subspaces
    | (Björck & Golub, 1973): principal angles
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.linalg import subspace_angles
from torch import Tensor

from layerpeel._checks import ShapeError, one_of, undefined
from layerpeel._tolerances import rank_cutoff
from layerpeel.geometry import Geometry, orthogonal_frame, simplex_etf
from layerpeel.geometry.geometry import off_diagonal
from layerpeel.measurement.metrics.frame_distance import FRAMES
from layerpeel.measurement.statistics.conventions import seen


@dataclass(frozen=True, eq=False)
class Angles:
    """Differences of measured and predicted angles, in radians; zero where they agree.

    Attributes:
        classifier_mean: Mean absolute difference over pairs of classifiers.
        classifier_max: The largest.
        feature_mean: Mean absolute difference over pairs of class means.
        feature_max: The largest.
        duality_mean: Mean absolute difference of the angle between a class's classifier
            and its mean.
        duality_max: The largest.
        classifier_cosines: For each class, the mean absolute difference of its
            classifier's cosines, with shape :math:`(K,)`.
        feature_cosines: The same of its mean's cosines.
    """

    classifier_mean: float
    classifier_max: float
    feature_mean: float
    feature_max: float
    duality_mean: float
    duality_max: float
    classifier_cosines: Float64[Tensor, " K"]
    feature_cosines: Float64[Tensor, " K"]


def angles(measured: Geometry, predicted: Geometry) -> Angles:
    """Compare the angles of two geometries of the same classes.

    Pairs that have no angle in one of them (a vector vanished, a class was never seen)
    are left out.

    Args:
        measured: A geometry of :math:`K` classes.
        predicted: Another one, centred in the same way.

    Returns:
        The differences; NaN with a warning where no pair has both angles.

    Raises:
        ShapeError: If the numbers of classes differ.

    Example:
        >>> from layerpeel import simplex_etf
        >>> frame = simplex_etf(3)
        >>> difference = angles(Geometry.of(2 * frame, frame), Geometry.of(frame, frame))
        >>> round(difference.classifier_max, 9), round(difference.duality_max, 9)
        (0.0, 0.0)
    """
    if measured.num_classes != predicted.num_classes:
        raise ShapeError(
            "Both geometries must have the same number of classes; got "
            f"{measured.num_classes} and {predicted.num_classes}."
        )
    pairs = [(g.classifier_cosines, g.feature_cosines) for g in (measured, predicted)]
    (w, h), (v, g) = pairs
    return Angles(
        *_mean_and_max("classifiers", off_diagonal(w), off_diagonal(v)),
        *_mean_and_max("class means", off_diagonal(h), off_diagonal(g)),
        *_mean_and_max("classes", _duality(measured), _duality(predicted)),
        classifier_cosines=_by_class(w, v),
        feature_cosines=_by_class(h, g),
    )


def frame_geometry(frame: str, classes: int) -> Geometry:
    """Return the geometry of a frame with equal classifiers and class means.

    Args:
        frame: A key of ``FRAMES``.
        classes: The number of classes :math:`K`.

    Raises:
        ValueError: If the frame is unknown.

    Example:
        >>> frame_geometry("orthogonal", 2).logits.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    one_of("frame", frame, FRAMES)
    rows = simplex_etf(classes) if frame == "simplex" else orthogonal_frame(classes)
    return Geometry.of(rows, rows)


def principal_angles(
    first: Float64[Tensor, "j p"],
    second: Float64[Tensor, "k p"],
    *,
    most: tuple[int, int] | None = None,
) -> Float64[Tensor, " angles"]:
    r"""Return the principal angles between the spaces that two sets of vectors span.

    All zero when one space contains the other, as those of classifiers and class means
    do under self-duality; :math:`\pi/2` for each direction that is orthogonal to all of
    the other space.

    Args:
        first: Vectors as rows, with shape :math:`(j, p)`. Rows with NaN are left out.
        second: Others, with shape :math:`(k, p)`.
        most: The dimensions of the two spaces at most: :math:`K - 1` for centred class
            vectors, whose last direction is rounding of what was subtracted. Directions
            below the numerical rank are left out in any case.

    Returns:
        The angles in radians, largest first, as many as the smaller space has
        dimensions; a single NaN with a warning when one has none.

    Example:
        >>> x, y = torch.eye(3).double()[:2], torch.eye(3).double()[1:]
        >>> principal_angles(x, y).round(decimals=4).tolist()
        [1.5708, 0.0]
    """
    ranks = most or (None, None)
    spaces = [_basis(seen(v), r) for v, r in zip((first, second), ranks, strict=True)]
    if not all(space.shape[1] for space in spaces):
        nan = undefined(
            "Principal angles are undefined (NaN): one set of vectors is zero."
        )
        return torch.tensor([nan], dtype=torch.float64)
    return torch.from_numpy(subspace_angles(*spaces)).to(torch.float64)


def _basis(rows: Tensor, rank: int | None) -> Float64[np.ndarray, "p r"]:
    """Return orthonormal columns that span the rows."""
    _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    largest = float(singular.max()) if len(singular) else 0.0
    kept = basis[singular > rank_cutoff(largest, *rows.shape)][:rank]
    columns: Float64[np.ndarray, "p r"] = kept.T.numpy()
    return columns


def _mean_and_max(what: str, first: Tensor, second: Tensor) -> tuple[float, float]:
    differences = (first.arccos() - second.arccos()).abs()
    differences = differences[~differences.isnan()]
    if not len(differences):
        nan = undefined(f"Angles of {what} are undefined (NaN): none has both.")
        return nan, nan
    return float(differences.mean()), float(differences.max())


def _duality(geometry: Geometry) -> Float64[Tensor, " K"]:
    """Return the cosine of each class's classifier and mean; NaN where one vanished."""
    scale = (
        geometry.classifier_norms
        * geometry.feature_norms
        # The diagonal of the cosines is one, or NaN where there is no direction.
        * geometry.classifier_cosines.diagonal()
        * geometry.feature_cosines.diagonal()
    )
    return (geometry.logits.diagonal() / scale).clamp(-1, 1)


def _by_class(first: Tensor, second: Tensor) -> Float64[Tensor, " K"]:
    differences = (first - second).abs().fill_diagonal_(torch.nan)
    return differences.nanmean(1)
