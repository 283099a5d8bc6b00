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

from layerpeel._checks import undefined
from layerpeel._tolerances import rank_cutoff
from layerpeel.measurement.statistics.conventions import seen
from layerpeel.measurement.statistics.subspace import mean_directions


def nc1(
    within: Float64[Tensor, "d d"] | None, centred_means: Float64[Tensor, "K d"]
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

    Returns:
        The ratio; NaN with a warning when all class means coincide, and without a
        covariance.

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
    kept = singular > rank_cutoff(largest, *means.shape)
    if not bool(kept.any()):
        return undefined("NC1 is undefined (NaN): the class means do not differ.")
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
        The quotient; NaN with a warning when all class means coincide.
    """
    means = seen(centred_means)
    between = float(means.square().sum()) / max(1, len(means))
    if between == 0:
        return undefined(
            "The NC1 quotient is undefined (NaN): the class means coincide."
        )
    return within_variance / between
