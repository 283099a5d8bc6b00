r"""Choices on which published measurements disagree, each an argument with a default.

The global mean is the mean over samples in the code of Fang et al. (2021), Zhu et al.
(2021) and Dang et al. (2023), and the mean of the class means elsewhere; they agree for
balanced data. The within-class covariance is pooled over samples in all of them, which
under imbalance lets frequent classes decide; averaging over classes is the alternative.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
    | A Geometric Analysis of Neural Collapse with Unconstrained Features
    | (Zhu et al., 2021), https://arxiv.org/abs/2105.02375
    | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
    | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of
from layerpeel.measurement.statistics.moments import ClassMoments

CENTRINGS: Mapping[str, str] = MappingProxyType(
    {
        "sample": "class means about the mean of all samples",
        "class": "class means about the mean of the class means",
        "none": "class means as they are",
    }
)
"""What is subtracted from the class means, by name."""

POOLINGS: Mapping[str, str] = MappingProxyType(
    {
        "pooled": "within-class covariance of all samples together, every sample once",
        "class": "average of the within-class covariances, every class once",
    }
)
"""How the within-class covariances of the classes are combined, by name."""


def global_mean(
    moments: ClassMoments, centring: str = "sample"
) -> Float64[Tensor, " d"]:
    """Return the point about which class means are centred.

    Args:
        moments: Moments of the features.
        centring: A key of ``CENTRINGS``.

    Returns:
        The point; zero for ``"none"``. Classes without samples have no part in it.

    Raises:
        ValueError: If ``centring`` is unknown.
    """
    one_of("centring", centring, CENTRINGS)
    if centring == "none":
        return torch.zeros_like(moments.mean[0])
    present = (moments.count > 0).to(torch.float64)
    weights = moments.count if centring == "sample" else present
    # Averaged about one of the means: far from the origin, sums would lose digits.
    base = moments.mean[moments.count.argmax()]
    return base + weights @ (moments.mean - base) / weights.sum().clamp(min=1)


def centred_means(
    moments: ClassMoments, centring: str = "sample"
) -> Float64[Tensor, "K d"]:
    """Return the class means about the global mean, NaN for unseen classes.

    Args:
        moments: Moments of the features.
        centring: A key of ``CENTRINGS``.

    Returns:
        The centred means, with shape :math:`(K, d)`.

    Raises:
        ValueError: If ``centring`` is unknown.
    """
    return moments.class_means - global_mean(moments, centring)


def row_centred(weight: Float64[Tensor, "K d"]) -> Float64[Tensor, "K d"]:
    """Return the classifiers minus their mean row.

    Adding one vector to every classifier moves all logits of a sample alike, which
    softmax does not see: the mean row is a remainder of initialisation. Weight decay
    takes it to zero in the limit, so the theory's classifiers have none.
    """
    return weight - weight.mean(0)


def seen(vectors: Float64[Tensor, "K p"]) -> Float64[Tensor, "present p"]:
    """Return the rows of classes that have samples, those without NaN."""
    return vectors[~vectors.isnan().any(1)]
