r"""The energies of a last layer: the two numbers that a Layer-Peeled Model is given.

The program's constraints are :math:`\frac{1}{K} \sum_k \|w_k\|^2 \leq E_W` and
:math:`\frac{1}{K} \sum_k \frac{1}{n_k} \sum_i \|h_{ki}\|^2 \leq E_H`. For a network
they are measured; by which rule is a choice, since real features have a mean and a
within-class spread that the program's solution has not.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of
from layerpeel.measurement.statistics.conventions import centred_means, row_centred
from layerpeel.measurement.statistics.moments import ClassMoments

ENERGY_CONVENTIONS: Mapping[str, str] = MappingProxyType(
    {
        "sample_mean": "features about the mean of all samples, within-class spread "
        "included; classifiers row-centred (the measure of Fang et al. 2021)",
        "class_mean": "features about the mean of the class means, within-class spread "
        "included; classifiers row-centred",
        "means_only": "class means about the mean of all samples, without the "
        "within-class spread; classifiers row-centred",
        "uncentred": "features and classifiers as they are, as the program's "
        "constraints are written",
    }
)
"""How energies are measured, by name; the first is the default."""

ENERGY_CENTRINGS: Mapping[str, str] = MappingProxyType(
    {
        "sample_mean": "sample",
        "class_mean": "class",
        "means_only": "sample",
        "uncentred": "none",
    }
)
"""What each convention centres the features by: a key of ``CENTRINGS``."""


def energies(
    moments: ClassMoments,
    weight: Float64[Tensor, "K d"],
    convention: str = "sample_mean",
) -> tuple[float, float]:
    r"""Return :math:`(E_W, E_H)`, the mean squared norms of classifiers and features.

    With :math:`c` the centre that the convention names,

    .. math::
        E_W = \frac{1}{K} \sum_k \|w_k - \bar w\|^2, \qquad
        E_H = \frac{1}{K} \sum_k \frac{1}{n_k} \sum_i \|h_{ki} - c\|^2
            = \frac{1}{K} \sum_k \left( \|\mu_k - c\|^2
            + \frac{\mathrm{tr}\, S_k}{n_k} \right) .

    Args:
        moments: Moments of the features. Classes without samples do not enter
            :math:`E_H`, also not its :math:`K`.
        weight: Classifiers, with shape :math:`(K, d)`.
        convention: A key of ``ENERGY_CONVENTIONS``.

    Returns:
        Both energies, ready to be given to a peeled problem.

    Raises:
        ValueError: If the convention is unknown.

    Example:
        >>> import torch
        >>> h = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
        >>> moments = ClassMoments.of(h, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> weight = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
        >>> energies(moments, weight), energies(moments, weight, "means_only")
        ((1.0, 5.0), (1.0, 4.0))
    """
    one_of("convention", convention, ENERGY_CONVENTIONS)
    rows = weight if convention == "uncentred" else row_centred(weight)
    square = centred_means(moments, ENERGY_CENTRINGS[convention]).square().sum(1)
    if convention != "means_only":
        square = square + moments.class_variances
    return float(rows.square().sum(1).mean()), float(square.nanmean())
