r"""NC5: data from outside the classes has its mean at a right angle to every class mean.

References:
    | NECO: NEural Collapse Based Out-of-distribution detection
    | (Ammar et al., 2023), https://arxiv.org/abs/2310.06823
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel.measurement.metrics.directions import directions
from layerpeel.measurement.statistics.conventions import seen


def nc5(
    class_means: Float64[Tensor, "K d"], outside_mean: Float64[Tensor, " d"]
) -> float:
    r"""Return the mean absolute cosine of the outside mean with the class means.

    .. math::
        \frac{1}{K} \sum_k \frac{|\langle \mu_k - c, \mu_O - c \rangle|}
        {\|\mu_k - c\| \, \|\mu_O - c\|}

    for the mean :math:`\mu_O` of out-of-distribution features and a common centre
    :math:`c`, which the caller subtracts. About the global mean of the classes the
    number does not change when all features move together. Uncentred, features that are
    nowhere negative are at right angles only where they share no unit.

    Args:
        class_means: Class means about the centre, with shape :math:`(K, d)`. Rows with
            NaN are left out.
        outside_mean: The mean of the outside data about the same centre, with shape
            :math:`(d,)`.

    Returns:
        The mean, zero for an outside mean orthogonal to all class means and at most 1;
        NaN with a warning when a mean vanished, and when there is no class.

    Example:
        >>> import torch
        >>> from layerpeel import orthogonal_frame
        >>> outside = torch.tensor([0.0, 0.0, 5.0]).double()
        >>> nc5(orthogonal_frame(2, width=3), outside)
        0.0
    """
    means = directions(seen(class_means))
    outside = directions(outside_mean[None])[0]
    cosines = (means @ outside).abs()
    if not len(cosines) or bool(cosines.isnan().any()):
        return undefined(
            "NC5 is undefined (NaN): the mean of the outside data or a class mean has "
            "vanished, and has no direction, or no class has samples."
        )
    return float(cosines.mean().clamp(max=1))
