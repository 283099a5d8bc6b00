r"""Class-conditional moments, the sufficient statistic of most neural-collapse metrics.

Two rules keep them accurate for features far from the origin and for any batch split:
a raw second moment is never formed, since it cancels; and every sum is taken about a
point near the data, so that it stays small.

References:
    | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
    | (Chan, Golub & LeVeque, 1979)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices

# Rows folded into one Chan update. The update costs K rows of work, so that it stays
# near a tenth of the fold for any number of classes.
_CHUNK_ROWS = 4096
_CHUNK_ROWS_PER_CLASS = 8

# Rows converted to float64 at a time: about 2 MB, which a core's cache holds, and never
# so few that updating the (d, d) scatter is limited by memory.
_BLOCK_ENTRIES = 2**18
_BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class ClassMoments:
    r"""Counts, means and centred scatter of features, per class.

    For class :math:`k` with features :math:`h_1, \dots, h_{n_k} \in \mathbb{R}^d`,

    .. math::
        \mu_k = \frac{1}{n_k} \sum_i h_i, \qquad
        S_k = \sum_{i} (h_i - \mu_k)(h_i - \mu_k)^\top , \qquad
        S = \sum_k S_k .

    The value is immutable. Two values describing disjoint data are combined with
    :meth:`merge`, which is exact up to rounding for any split of the data.

    Attributes:
        count: Number of samples per class :math:`n_k`, with shape :math:`(K,)`.
        mean: Class means :math:`\mu_k`, with shape :math:`(K, d)`. A class without
            samples keeps zeros here; :attr:`class_means` has NaN instead.
        scatter: Within-class scatter :math:`S`, with shape :math:`(d, d)`.
        trace: Trace of each class's own scatter :math:`\mathrm{tr}\, S_k`, with shape
            :math:`(K,)`.

    Example:
        >>> h = torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
        >>> y = torch.tensor([0, 0, 1])
        >>> whole = ClassMoments.of(h, y, num_classes=2)
        >>> whole.mean.tolist(), whole.trace.tolist()
        ([[0.0, 2.0], [5.0, 5.0]], [2.0, 0.0])
        >>> head = ClassMoments.of(h[:1], y[:1], num_classes=2)
        >>> tail = ClassMoments.of(h[1:], y[1:], num_classes=2)
        >>> torch.equal(whole.scatter, head.merge(tail).scatter)
        True
    """

    count: Float64[Tensor, " K"]
    mean: Float64[Tensor, "K d"]
    scatter: Float64[Tensor, "d d"]
    trace: Float64[Tensor, " K"]

    @classmethod
    def empty(cls, num_classes: int, width: int) -> ClassMoments:
        """Return the moments of no data, the neutral element of :meth:`merge`."""
        zeros = torch.zeros(num_classes, width, dtype=torch.float64)
        scatter = zeros.new_zeros(width, width)
        return cls(
            zeros.new_zeros(num_classes), zeros, scatter, zeros.new_zeros(num_classes)
        )

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
        """Compute the moments of some samples, in float64.

        Args:
            features: Features of any floating type, with shape :math:`(n, d)`.
            labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
            num_classes: The number of classes :math:`K`.

        Returns:
            The moments of these samples.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no index in :math:`[0, K)`.
        """
        _check_shapes(features, labels)
        labels = class_indices(labels, num_classes)
        origin = near(features)
        return moments_about(origin, features, labels, num_classes).moved(origin)

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`, seen or not."""
        return len(self.count)

    @property
    def num_samples(self) -> int:
        """The number of samples :math:`N`."""
        return int(self.count.sum())

    @property
    def width(self) -> int:
        """The number of features :math:`d`."""
        return self.mean.shape[1]

    @property
    def class_means(self) -> Float64[Tensor, "K d"]:
        """Class means, with NaN for classes without samples."""
        return self.mean.masked_fill((self.count == 0)[:, None], torch.nan)

    @property
    def class_variances(self) -> Float64[Tensor, " K"]:
        r"""Variance :math:`\mathrm{tr}\, S_k / n_k` of each class; NaN if unseen."""
        return self.trace / self.count

    def merge(self, other: ClassMoments) -> ClassMoments:
        """Combine with the moments of disjoint data.

        Args:
            other: Moments with the same :math:`K` and :math:`d`.

        Returns:
            The moments of the union of both data sets.

        Raises:
            ShapeError: If the numbers of classes or features differ.
        """
        if self.mean.shape != other.mean.shape:
            raise ShapeError(
                "Moments can be merged when they have the same classes and features "
                f"(K, d); got {tuple(self.mean.shape)} and {tuple(other.mean.shape)}."
            )
        count = self.count + other.count
        # A class unseen by both keeps mean zero: its weight is 0 / 1, not 0 / 0.
        weight = other.count / count.clamp(min=1)
        delta = other.mean - self.mean
        # Zero where either side has no samples, so their zero means cannot enter.
        shift = (self.count * weight)[:, None] * delta
        return ClassMoments(
            count,
            self.mean + weight[:, None] * delta,
            (self.scatter + other.scatter).addmm_(delta.T, shift),
            self.trace + other.trace + (delta * shift).sum(1),
        )

    def moved(self, offset: Float64[Tensor, " d"]) -> ClassMoments:
        """Return the moments of the same features with ``offset`` added to each."""
        seen = (self.count > 0)[:, None]
        mean = torch.where(seen, self.mean + offset, self.mean)
        return ClassMoments(self.count, mean, self.scatter, self.trace)


def near(features: Tensor) -> Float64[Tensor, " d"]:
    """Return a point near the features: the mean of the first few of them."""
    first = features[:_BLOCK_ROWS].detach().to(torch.float64)
    return first.mean(0) if len(first) else first.sum(0)


def moments_about(
    origin: Float64[Tensor, " d"],
    features: Tensor,
    labels: Int64[Tensor, " n"],
    num_classes: int,
) -> ClassMoments:
    r"""Return the moments of :math:`h - o` for a fixed origin :math:`o`.

    Args:
        origin: The point :math:`o`, with shape :math:`(d,)`.
        features: Finite features :math:`h`, with shape :math:`(n, d)`.
        labels: Valid class indices, with shape :math:`(n,)`.
        num_classes: The number of classes :math:`K`.

    Returns:
        The moments, with means relative to the origin.
    """
    parts = max(1, len(labels) // chunk_rows(num_classes))
    chunks = zip(
        features.detach().tensor_split(parts), labels.tensor_split(parts), strict=True
    )
    return reduce(
        ClassMoments.merge,
        (_chunk_moments(origin, h, y, num_classes) for h, y in chunks),
    )


def chunk_rows(num_classes: int) -> int:
    """Return how many rows are worth one Chan update."""
    return max(_CHUNK_ROWS, _CHUNK_ROWS_PER_CLASS * num_classes)


def _chunk_moments(
    origin: Tensor, features: Tensor, labels: Tensor, num_classes: int
) -> ClassMoments:
    """Two passes over rows few enough to be cheap to read twice."""
    moments = ClassMoments.empty(num_classes, len(origin))
    count = torch.bincount(labels, minlength=num_classes).to(torch.float64)
    for h, y in _blocks(features, labels):
        moments.mean.index_add_(0, y, h.sub_(origin))
    moments.mean.div_(count.clamp(min=1)[:, None])
    centre = moments.mean + origin
    for h, y in _blocks(features, labels):
        centred = h.sub_(centre[y])
        moments.scatter.addmm_(centred.T, centred)
        moments.trace.index_add_(
            0, y, torch.linalg.vector_norm(centred, dim=1).square_()
        )
    return ClassMoments(count, moments.mean, moments.scatter, moments.trace)


def _blocks(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float64 copies of a few rows at a time, which the caller may overwrite."""
    rows = max(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, features.shape[1]))
    parts = -(-len(labels) // rows) or 1
    for h, y in zip(
        features.tensor_split(parts), labels.tensor_split(parts), strict=True
    ):
        yield h.to(torch.float64, copy=True), y


def _check_shapes(features: Tensor, labels: Tensor) -> None:
    if features.ndim != 2:
        raise ShapeError(
            f"`features` must have shape (n, d), one row per sample; got "
            f"{tuple(features.shape)}. Flatten them with `features.flatten(1)`."
        )
    if labels.ndim == 1 and len(labels) != len(features):
        raise ShapeError(
            f"`labels` must have shape ({len(features)},) to match `features`; got "
            f"{tuple(labels.shape)}."
        )
