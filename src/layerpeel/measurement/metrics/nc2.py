r"""NC2: class vectors of equal length at equal, largest possible angles.

Three frames are in use as the end of training, and each has its distance. A simplex
equiangular tight frame (:func:`nc2`) is that of centred vectors. An orthogonal frame
(:func:`orthogonal_distance`) is that of training without a bias, and an orthogonal frame
of unequal lengths (:func:`general_orthogonal_distance`) its form under imbalance.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186: the first measures
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: the Gram distances
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, listed, undefined
from layerpeel.measurement.metrics.directions import directions, unit_scaled
from layerpeel.measurement.metrics.frame_distance import frame_target, product_distance
from layerpeel.measurement.metrics.pairs import cosines
from layerpeel.measurement.metrics.spread import Spread
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

    The Gram matrix is never whole: the memory is :math:`O(K p)`.

    Args:
        vectors: One vector per class, centred as wanted, with shape :math:`(K, p)`.
            Rows with NaN (classes without samples) are left out, also of :math:`K`.
        correction: What is subtracted from the number of norms or cosines in standard
            deviations. 0, the default, since the classes are all there is and no
            sample of more; 1 is the default of ``torch.std``.

    Returns:
        The measures; NaN with a warning where vectors vanish and have no angle, for
        fewer than two classes, and for a deviation of no more numbers than the
        correction.

    Raises:
        ValueError: If the correction is no integer of at least 0.

    Example:
        >>> from layerpeel import simplex_etf
        >>> deviation = nc2(simplex_etf(4))
        >>> round(deviation.equinorm, 12), round(deviation.angle, 12)
        (0.0, 0.0)
    """
    at_least("correction", correction, 0)
    rows, _ = unit_scaled(seen(vectors))
    if len(rows) < 2 or not bool(rows.any()):
        nan = undefined("NC2 is undefined (NaN): it needs two classes with a vector.")
        return NC2(nan, nan, nan, nan, nan)
    norms = rows.norm(dim=1)
    angles, distance = _angles(rows)
    return NC2(
        equinorm=_std("norms", norms, correction) / float(norms.mean()),
        mean_cosine=angles.mean,
        equiangularity=_std_over_ordered_pairs(angles, correction),
        angle=distance,
        gram=product_distance(rows, rows, *frame_target("simplex", len(rows))),
    )


def orthogonal_distance(vectors: Float64[Tensor, "K p"]) -> float:
    r"""Return :math:`\| G/\|G\|_F - I/\sqrt{K} \|_F`, zero for an orthogonal frame.

    :math:`G` is the Gram matrix of the vectors. They are to be uncentred: an orthogonal
    frame has a mean, and without it would be a simplex.

    Args:
        vectors: One vector per class, with shape :math:`(K, p)`. Rows with NaN are left
            out, also of :math:`K`.

    Returns:
        The distance, below :math:`\sqrt 2`; NaN with a warning when all vectors are
        zero. For :math:`K > p` it cannot be zero.

    Example:
        >>> from layerpeel import orthogonal_frame
        >>> round(orthogonal_distance(3 * orthogonal_frame(4, width=6)), 12)
        0.0
    """
    rows = seen(vectors)
    if not bool(rows.any()):
        return _no_vectors("orthogonal frame")
    return product_distance(rows, rows, *frame_target("orthogonal", len(rows)))


def general_orthogonal_distance(
    vectors: Float64[Tensor, "K p"], norms: Sequence[float] | None = None
) -> float:
    r"""Return :math:`\| G/\|G\|_F - D/\|D\|_F \|_F` for a diagonal matrix :math:`D`.

    Zero for a general orthogonal frame, orthogonal vectors of any lengths (Dang et al.
    2023), which class vectors form under imbalance without a bias.

    Args:
        vectors: One vector per class, uncentred, with shape :math:`(K, p)`. Rows with
            NaN are left out.
        norms: The predicted lengths of the :math:`K` vectors, up to one factor; their
            squares are the diagonal :math:`D`. By default that of :math:`G` itself,
            which is the nearest: then only the angles count.

    Returns:
        The distance, below :math:`\sqrt 2`; NaN with a warning when all vectors or all
        norms are zero.

    Raises:
        ShapeError: If there is not one norm per vector.
        ValueError: If a norm is negative, infinite or NaN.

    Example:
        >>> from layerpeel import general_orthogonal_frame
        >>> frame = general_orthogonal_frame([1.0, 2.0])
        >>> round(general_orthogonal_distance(frame), 12)
        0.0
        >>> round(general_orthogonal_distance(frame, norms=[1.0, 1.0]), 4)
        0.5339
    """
    present = ~vectors.isnan().any(1)
    rows, _ = unit_scaled(vectors[present])
    if norms is None:
        diagonal = rows.square().sum(1)
    else:
        diagonal = _lengths(norms, len(vectors))[present].square()
    if not (bool(rows.any()) and bool(diagonal.any())):
        return _no_vectors("general orthogonal frame")
    return product_distance(rows, rows, diagonal)


def _lengths(norms: Sequence[float], classes: int) -> Float64[Tensor, " K"]:
    lengths = torch.as_tensor(norms, dtype=torch.float64)
    if lengths.shape != (classes,):
        raise ShapeError(
            f"`norms` must have one length for each of {classes} vectors; got shape "
            f"{tuple(lengths.shape)}."
        )
    wrong = lengths[~(lengths.isfinite() & (lengths >= 0))]
    if len(wrong):
        raise ValueError(
            f"`norms` must be finite lengths >= 0; got {listed(wrong.tolist())}. Leave "
            "`norms` out to take those of the vectors."
        )
    return unit_scaled(lengths[None])[0][0]


def _no_vectors(frame: str) -> float:
    return undefined(
        f"The distance to a {frame} is undefined (NaN): all vectors are zero."
    )


def _angles(rows: Float64[Tensor, "K p"]) -> tuple[Spread, float]:
    """Return the spread of the cosines, and their mean distance to the widest."""
    units = directions(rows)
    if bool(units.isnan().any()):
        nan = undefined(
            "NC2 angles are undefined (NaN): some class vectors have vanished."
        )
        return Spread(0, nan, nan), nan
    widest, spread, distance = -1 / (len(rows) - 1), Spread(), 0.0
    for block in cosines(units):
        spread = spread.merge(Spread.of(block.values))
        distance += float((block.values - widest).abs().sum())
    return spread, distance / spread.count


def _std(what: str, values: Float64[Tensor, " m"], correction: int) -> float:
    if len(values) <= correction:
        return _few(what, len(values), correction)
    return float(values.std(correction=correction))


def _std_over_ordered_pairs(angles: Spread, correction: int) -> float:
    """Every pair twice, as in the matrix of cosines: that is what a correction is of."""
    if math.isnan(angles.mean):
        return math.nan
    degrees = 2 * angles.count - correction
    if degrees <= 0:
        return _few("cosines", 2 * angles.count, correction)
    return math.sqrt(2 * angles.deviations / degrees)


def _few(what: str, number: int, correction: int) -> float:
    return undefined(
        f"The deviation of {what} in NC2 is undefined (NaN): `correction` is {correction}, "
        f"and there are {number}. Leave it at 0, or below their number."
    )
