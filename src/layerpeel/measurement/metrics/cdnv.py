r"""CDNV: the variance within two classes against the distance between them.

References:
    | On the Role of Neural Collapse in Transfer Learning
    | (Galanti, György & Hutter, 2021), https://arxiv.org/abs/2112.15121
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel._tolerances import LEAST_SQUARED
from layerpeel.measurement.metrics.pairs import squared_distances


def cdnv(
    means: Float64[Tensor, "K d"],
    variances: Float64[Tensor, " K"],
    *,
    resolution: float = 0.0,
) -> float:
    r"""Return the mean class-distance normalised variance over pairs of classes.

    .. math::
        \frac{v_j + v_k}{2 \|\mu_j - \mu_k\|^2}, \qquad
        v_k = \frac{1}{n_k} \sum_i \|h_{ki} - \mu_k\|^2

    Pairs are taken a block of classes at a time: the memory is :math:`O(K d)`, and the
    time a little over that of half a product of the means with themselves.

    Args:
        means: Class means, centred or not, with shape :math:`(K, d)`. Rows with NaN are
            left out.
        variances: Total variances :math:`v_k`, with shape :math:`(K,)`.
        resolution: The distance up to which two means coincide, as from
            ``metrics.resolution``.

    Returns:
        The mean over pairs (Galanti et al. 2021); NaN with a warning when two class
        means coincide, for a single class, and for means too far apart or too near to
        square their distance.

    Example:
        >>> import torch
        >>> means = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
        >>> cdnv(means, torch.tensor([1.0, 3.0], dtype=torch.float64))
        0.5
    """
    present = ~means.isnan().any(1)
    mu, v = means[present], variances[present]
    total, pairs, near = 0.0, 0, max(resolution, LEAST_SQUARED)
    for block in squared_distances(mu):
        ratios = (v[block.first] + v[block.second]) / (2 * block.values)
        # No distance makes a ratio infinite, noise or, without variance, NaN.
        distinct = (block.values.sqrt() > near) & block.values.isfinite()
        if not bool(distinct.all()):
            return _undefined()
        total += float(ratios.sum())
        pairs += len(ratios)
    return total / pairs if pairs else _undefined()


def _undefined() -> float:
    return undefined(
        "CDNV is undefined (NaN): it needs classes with distinct means, at distances whose "
        "squares are float64 numbers."
    )
