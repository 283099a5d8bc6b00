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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import MergeError, one_of
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.statistic import Statistic
from layerpeel.measurement.statistics.subspace import MeanSubspace

REFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "all data": "the class means of all the data, known after a first look",
        "each part": "for each merged part, the class means of that part alone",
        "running means": "the class means of what was seen so far, in a single look",
    }
)
"""Against which class means samples were compared, by name; the first is exact."""


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
class NearestMean(Statistic):
    r"""How often the network decides for the nearest class mean.

    Parts that were compared with the same means merge exactly. Parts that were measured
    apart merge too, and are then each compared with means of its own: ``against`` says
    so, and there is no class-averaged covariance of them.

    Attributes:
        agreed: Samples of each class on which both agree, with shape :math:`(K,)`.
        count: Samples of each class, with shape :math:`(K,)`.
        against: What the samples were compared with, a key of ``REFERENCES``.
        means: The class means they were compared with, with shape :math:`(K, d)` and
            NaN for classes without samples; ``None`` if there were several.
        basis: Orthonormal directions of the space of these means, as rows, with shape
            :math:`(r, d)`, or ``None`` as for ``class_averaged``.
        class_averaged: The class-averaged within-class covariance
            :math:`\frac{1}{K} \sum_k S_k / n_k` in the coordinates of the basis, with
            shape :math:`(r, r)`; ``None`` in light mode, or for several means.

    Example:
        >>> h, y = torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([0, 0, 1])
        >>> moments = ClassMoments.of(h, y, num_classes=2)
        >>> nearest = NearestMean.of([Decisions(h, y, torch.tensor([0, 1, 1]))], moments)
        >>> nearest.class_agreement.tolist(), nearest.against
        ([0.5, 1.0], 'all data')
    """

    growing: ClassVar[tuple[str, ...]] = ("against", "means", "basis", "class_averaged")

    agreed: Int64[Tensor, " K"]
    count: Int64[Tensor, " K"]
    against: str
    means: Float64[Tensor, "K d"] | None
    basis: Float64[Tensor, "r d"] | None
    class_averaged: Float64[Tensor, "r r"] | None

    @classmethod
    def empty(cls, num_classes: int) -> NearestMean:
        """Return the counts of no data, the neutral element of ``merge``."""
        zeros = torch.zeros(num_classes, dtype=torch.int64)
        return cls(zeros, zeros.clone(), "all data", None, None, None)

    @classmethod
    def of(cls, samples: Iterable[Decisions], moments: ClassMoments) -> NearestMean:
        """Compare decisions with the nearest class mean (Euclidean).

        Args:
            samples: All samples that the moments describe, or some of them, in any
                order and split. Those of several processes merge exactly when all are
                given the moments of all samples.
            moments: Moments of the features of all samples, with at least one.

        Returns:
            The counts, and the class-averaged covariance.
        """
        subspace = MeanSubspace.of(moments)
        agreed = torch.zeros_like(moments.count, dtype=torch.int64)
        count = torch.zeros_like(agreed)
        scatter = _zeros(subspace)
        weight = (moments.count.clamp(min=1) * subspace.present.sum()).rsqrt()
        for features, labels, predictions in samples:
            z = subspace.coordinates(features)
            agrees = subspace.nearest(z) == predictions
            agreed += torch.bincount(labels[agrees], minlength=len(count))
            count += torch.bincount(labels, minlength=len(count))
            if scatter is not None:
                centred = (z - subspace.means[labels]) * weight[labels, None]
                scatter.addmm_(centred.T, centred)
        means = moments.class_means
        return cls(agreed, count, "all data", means, subspace.basis, scatter)

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
    def class_averaged_covariance(self) -> Float64[Tensor, "d d"] | None:
        """The class-averaged covariance, projected onto the space of class means.

        All that NC1 sees of it: its trace is not that of the whole covariance. ``None``
        in light mode, or where parts were compared with different means.
        """
        if self.basis is None or self.class_averaged is None:
            return None
        return self.basis.T @ self.class_averaged @ self.basis

    def without_means(self, against: str) -> NearestMean:
        """Return the counts alone, with what they were compared with by name.

        Raises:
            ValueError: If the name is no key of ``REFERENCES``.
        """
        one_of("against", against, REFERENCES)
        return NearestMean(self.agreed, self.count, against, None, None, None)

    def _merged(self, other: NearestMean) -> NearestMean:
        for one, another in ((self, other), (other, self)):
            if not bool(one.count.any()):
                return another
        _check_widths(self.means, other.means)
        agreed, count = self.agreed + other.agreed, self.count + other.count
        if not _same(self.means, other.means):
            ranks = list(REFERENCES)
            least = max(self.against, other.against, "each part", key=ranks.index)
            return NearestMean(agreed, count, least, None, None, None)
        averaged = _added(self, other)
        return NearestMean(
            agreed, count, self.against, self.means, self.basis, averaged
        )


def _added(one: NearestMean, other: NearestMean) -> Tensor | None:
    """Add class-averaged covariances that belong to the same means."""
    mine, theirs = one.class_averaged, other.class_averaged
    if mine is None or theirs is None or one.basis is None or other.basis is None:
        return None
    # The same space; two machines may have found other axes of it.
    turn = one.basis @ other.basis.T
    return mine + turn @ theirs @ turn.T


def _zeros(subspace: MeanSubspace) -> Tensor | None:
    if subspace.basis is None:
        return None
    rank = len(subspace.basis)
    return subspace.basis.new_zeros(rank, rank)


def _check_widths(means: Tensor | None, others: Tensor | None) -> None:
    if means is None or others is None or means.shape == others.shape:
        return
    raise MergeError(
        "Two NearestMean values merge when they agree in the shape of `means`; got "
        f"{tuple(means.shape)} and {tuple(others.shape)}. Measure both the same way."
    )


def _same(means: Tensor | None, others: Tensor | None) -> bool:
    if means is None or others is None:
        return False
    return bool(((means == others) | (means.isnan() & others.isnan())).all())
