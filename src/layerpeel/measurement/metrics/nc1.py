r"""NC1, variability collapse: within-class against between-class scatter.

Two measures of one thing, and :mod:`~layerpeel.measurement.metrics.cdnv` has a third, of
pairs of classes. :func:`nc1` is the usual one; it weighs every direction between classes
by the inverse of its own size, so that one pair of merging classes can dominate it.
:func:`nc1_quotient` compares totals, and is the calm one.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
    | Perturbation Analysis of Neural Collapse
    | (Tirer, Huang & Niles-Weed, 2023), https://arxiv.org/abs/2210.16658: the quotient
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of, undefined
from layerpeel._tolerances import LEAST_SQUARED, MOST_SQUARED, rank_cutoff
from layerpeel.measurement.statistics.conventions import POOLINGS, seen
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.subspace import mean_directions


def nc1(
    within: Float64[Tensor, "d d"] | None,
    centred_means: Float64[Tensor, "K d"],
    *,
    resolution: float = 0.0,
) -> float:
    r"""Return :math:`\mathrm{tr}(S_W S_B^+) / K`, zero under full collapse.

    .. math::
        S_B = \frac{1}{K} \sum_k (\mu_k - \mu_G)(\mu_k - \mu_G)^\top

    With the thin singular value decomposition :math:`U \,\mathrm{diag}(s)\, V^\top` of
    the centred means, :math:`S_B^+ = K\, V \mathrm{diag}(s^{-2})\, V^\top`, hence

    .. math::
        \frac{1}{K} \mathrm{tr}(S_W S_B^+) = \sum_j \frac{v_j^\top S_W v_j}{s_j^2} .

    :math:`K` centred means span at most :math:`K - 1` dimensions. Further singular
    values are rounding noise, and are cut by this rank, not by their size alone.

    Args:
        within: Within-class covariance :math:`S_W`, with shape :math:`(d, d)`; ``None``
            where it was not accumulated.
        centred_means: Class means about a global mean, with shape :math:`(K, d)`. Rows
            with NaN (classes without samples) are left out, also of :math:`K`.
        resolution: The length up to which a mean is rounding noise, as from
            ``metrics.resolution``; directions of
            noise are left out. Means that coincide far from the origin need it, since
            centred means do not tell how far that was.

    Returns:
        The ratio; NaN with a warning when all class means coincide, without a
        covariance, and for means too large or too small to be squared.

    Example:
        >>> import torch
        >>> means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
        >>> round(nc1(torch.eye(2, dtype=torch.float64), means), 12)
        0.5
    """
    if within is None:
        return undefined(
            "NC1 is undefined (NaN): light mode keeps no (d, d) covariance. The quotient "
            "and CDNV need none; or measure with `light=False`."
        )
    means = seen(centred_means)
    singular, directions = mean_directions(means)
    largest = float(singular.max()) if len(singular) else 0.0
    noise = resolution * len(means) ** 0.5
    kept = singular > max(rank_cutoff(largest, *means.shape), noise)
    if not bool(kept.any()):
        return undefined("NC1 is undefined (NaN): the class means do not differ.")
    if not LEAST_SQUARED < largest < MOST_SQUARED:
        return undefined(_NO_SQUARES.format("NC1"))
    v, s = directions[kept], singular[kept]
    return float(((v @ within) * v).sum(1) @ s.pow(-2))


def nc1_quotient(
    within_variance: float, centred_means: Float64[Tensor, "K d"]
) -> float:
    r"""Return :math:`\mathrm{tr}\, S_W / \mathrm{tr}\, S_B`.

    Args:
        within_variance: :math:`\mathrm{tr}\, S_W`.
        centred_means: Class means about a global mean, with shape :math:`(K, d)`. Rows
            with NaN are left out.

    Returns:
        The quotient; NaN with a warning when all class means coincide, and for means too
        large or too small to be squared.
    """
    means = seen(centred_means)
    if not bool(means.any()):
        return undefined(
            "The NC1 quotient is undefined (NaN): the class means coincide."
        )
    if not LEAST_SQUARED < float(means.abs().max()) < MOST_SQUARED:
        return undefined(_NO_SQUARES.format("The NC1 quotient"))
    return within_variance / (float(means.square().sum()) / len(means))


def within_variance(moments: ClassMoments, pooling: str = "pooled") -> float:
    r"""Return the total within-class variance :math:`\mathrm{tr}\, S_W`.

    Args:
        moments: Moments of the features; light ones suffice.
        pooling: A key of ``POOLINGS``.

    Returns:
        The variance; NaN without samples.

    Raises:
        ValueError: If the pooling is unknown.

    Example:
        >>> import torch
        >>> h, y = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])
        >>> moments = ClassMoments.of(h, y, num_classes=2)
        >>> within_variance(moments, "class")
        0.5
    """
    if one_of("pooling", pooling, POOLINGS) == "class":
        return float(moments.class_variances.nanmean())
    return float(moments.trace.sum() / moments.count.sum())


_NO_SQUARES = (
    "{} is undefined (NaN): the squares of these features are no float64 numbers. Divide "
    "the features by their size."
)
