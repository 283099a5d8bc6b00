r"""Margins of a linear classifier at the class means: by how much each class wins.

References:
    | Learning Towards the Largest Margins
    | (Zhou et al., 2022), https://arxiv.org/abs/2206.11589: margins of unit vectors
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of, undefined
from layerpeel.measurement.metrics.directions import directions
from layerpeel.measurement.metrics.pairs import distance_blocks, row_blocks

MARGINS: Mapping[str, str] = MappingProxyType(
    {
        "logits": "difference of logits, bias included",
        "boundary": "distance in feature space to the nearest decision boundary, bias "
        "included",
        "cosine": "difference of cosines of class mean and classifiers, without bias: "
        "lengths do not count",
    }
)
"""In which unit margins are, by name; the first is the default."""


def class_margins(
    weight: Float64[Tensor, "K d"],
    bias: Float64[Tensor, " K"] | None,
    class_means: Float64[Tensor, "K d"],
    unit: str = "logits",
) -> Float64[Tensor, " K"]:
    r"""Return the margin of each class at its mean, negative where another class wins.

    With logits :math:`z_{kj} = \langle w_j, \mu_k \rangle + b_j` of the class means,

    .. math::
        \min_{j \neq k} (z_{kk} - z_{kj}), \qquad
        \min_{j \neq k} \frac{z_{kk} - z_{kj}}{\|w_k - w_j\|}, \qquad
        \min_{j \neq k} (\cos_{kk} - \cos_{kj}) .

    Args:
        weight: Classifiers :math:`w_j`, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`; ``None`` counts as zero.
        class_means: Class means :math:`\mu_k`, as they are where there is a bias, with
            shape :math:`(K, d)`.
        unit: A key of ``MARGINS``. Logits by default, what the loss sees.

    Returns:
        The margins, with shape :math:`(K,)`; NaN for classes without samples and, with
        a warning, for a single class, for the cosine of a vanished vector, and for the
        boundary between equal classifiers.

    Raises:
        ValueError: If the unit is unknown.

    Example:
        >>> from layerpeel import simplex_etf
        >>> frame = simplex_etf(3)
        >>> class_margins(2 * frame, None, frame).round(decimals=9).tolist()
        [3.0, 3.0, 3.0]
    """
    one_of("unit", unit, MARGINS)
    absent = class_means.isnan().any(1)
    if unit == "cosine":
        weight, bias, class_means = directions(weight), None, directions(class_means)
    margins = torch.full((len(weight),), torch.nan, dtype=torch.float64)
    if len(weight) > 1:
        for rows, gaps in _gaps(weight, bias, class_means, unit):
            own = torch.arange(rows.start, rows.stop)
            gaps[own - rows.start, own] = torch.inf
            margins[rows] = gaps.min(1).values
    if bool((margins.isnan() & ~absent).any()):
        undefined(
            "Some class margins are undefined (NaN): they need two classes, classifiers "
            "that differ and, for cosines, vectors that have not vanished."
        )
    return margins


def _gaps(
    weight: Tensor, bias: Tensor | None, means: Tensor, unit: str
) -> Iterator[tuple[slice, Float64[Tensor, "m K"]]]:
    """Yield a block of classes, and by how much each wins over every other."""
    distances = distance_blocks(weight) if unit == "boundary" else None
    for rows in row_blocks(len(weight)):
        logits = means[rows] @ weight.T
        if bias is not None:
            logits = logits + bias
        own = torch.arange(len(logits))
        gaps = logits[own, own + rows.start, None] - logits
        yield rows, gaps if distances is None else gaps / next(distances)[1].sqrt()
