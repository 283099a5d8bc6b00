r"""NC4: the network decides like a nearest-class-mean classifier.

The class means are known only after all samples were seen, so this takes a second look
at the features. The same look yields the within-class covariance averaged over classes,
which no stream of moments of that size can give: its weights :math:`1/n_k` are known
only at the end.

References:
    | Prevalence of Neural Collapse during the terminal phase of deep learning training
    | (Papyan, Han & Donoho, 2020), https://arxiv.org/abs/2008.08186
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.subspace import MeanSubspace


class Decisions(NamedTuple):
    """Features of some samples, and what the network decided.

    Attributes:
        features: Inputs of the head, with shape :math:`(n, d)`.
        labels: True classes, with shape :math:`(n,)`.
        predictions: Largest logits, bias included, with shape :math:`(n,)`.
    """

    features: Tensor
    labels: Tensor
    predictions: Tensor


@dataclass(frozen=True, eq=False)
class NearestMean:
    r"""How often the network decides for the nearest class mean.

    Attributes:
        agreed: Samples of each class on which both agree, with shape :math:`(K,)`.
        count: Samples of each class, with shape :math:`(K,)`.
        class_averaged: The class-averaged within-class covariance
            :math:`\frac{1}{K} \sum_k S_k / n_k` restricted to ``subspace``, with shape
            :math:`(r, r)`.
        subspace: The space of the class means.
    """

    agreed: Int64[Tensor, " K"]
    count: Int64[Tensor, " K"]
    class_averaged: Float64[Tensor, "r r"]
    subspace: MeanSubspace

    @classmethod
    def of(cls, samples: Iterable[Decisions], moments: ClassMoments) -> NearestMean:
        """Compare decisions with the nearest class mean (Euclidean).

        Args:
            samples: All samples that the moments describe, in any order and split.
            moments: Moments of their features.

        Returns:
            The counts, and the class-averaged covariance.
        """
        subspace = MeanSubspace.of(moments)
        classes, rank = subspace.means.shape
        agreed = torch.zeros(classes, dtype=torch.int64)
        count = torch.zeros(classes, dtype=torch.int64)
        scatter = torch.zeros(rank, rank, dtype=torch.float64)
        weight = moments.count.clamp(min=1).rsqrt()
        for features, labels, predictions in samples:
            z = subspace.coordinates(features)
            agrees = subspace.nearest(z) == predictions
            agreed += torch.bincount(labels[agrees], minlength=classes)
            count += torch.bincount(labels, minlength=classes)
            centred = (z - subspace.means[labels]) * weight[labels, None]
            scatter.addmm_(centred.T, centred)
        return cls(agreed, count, scatter / subspace.present.sum(), subspace)

    @property
    def agreement(self) -> float:
        """Share of samples on which network and nearest mean agree; 1 under NC4."""
        return float(self.agreed.sum() / self.count.sum().to(torch.float64))

    @property
    def mismatch(self) -> float:
        """Share of samples on which they differ; 0 under NC4."""
        return float(
            (self.count - self.agreed).sum() / self.count.sum().to(torch.float64)
        )

    @property
    def class_agreement(self) -> Float64[Tensor, " K"]:
        """Share of agreement by true class; NaN for classes without samples."""
        return self.agreed.to(torch.float64) / self.count

    @property
    def class_averaged_covariance(self) -> Float64[Tensor, "d d"]:
        """The class-averaged covariance, projected onto the space of class means.

        All that NC1 sees of it: its trace is not that of the whole covariance.
        """
        return self.subspace.basis.T @ self.class_averaged @ self.subspace.basis
