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

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices
from layerpeel.measurement.statistics.gram import add_gram, mirror
from layerpeel.measurement.statistics.statistic import Statistic

# Rows folded into one Chan update. The update costs K rows of work, so that it stays
# near a tenth of the fold; and no more rows than fit beside the means of that many
# classes, since they are kept until they are folded.
_CHUNK_ROWS = 4096
_CHUNK_ROWS_PER_CLASS = 16
_MOST_CHUNK_ROWS = 2**15

# Rows converted to float64 at a time: about 2 MB, which a core's cache holds, and never
# so few that updating the (d, d) scatter is limited by memory.
_BLOCK_ENTRIES = 2**18
_BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class ClassMoments(Statistic):
    r"""Counts, means and centred scatter of features, per class.

    For class :math:`k` with features :math:`h_1, \dots, h_{n_k} \in \mathbb{R}^d`,

    .. math::
        \mu_k = \frac{1}{n_k} \sum_i h_i, \qquad
        S_k = \sum_{i} (h_i - \mu_k)(h_i - \mu_k)^\top , \qquad
        S = \sum_k S_k .

    The value is immutable. Two values describing disjoint data are combined with
    ``merge``, which is exact up to rounding for any split of the data.

    Attributes:
        count: Number of samples per class :math:`n_k`, with shape :math:`(K,)`.
        mean: Class means :math:`\mu_k`, with shape :math:`(K, d)`. A class without
            samples keeps zeros here; :attr:`class_means` has NaN instead.
        scatter: Within-class scatter :math:`S`, with shape :math:`(d, d)`; ``None`` in
            light mode, whose memory is :math:`O(K d)`.
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
    scatter: Float64[Tensor, "d d"] | None
    trace: Float64[Tensor, " K"]

    @classmethod
    def empty(
        cls, num_classes: int, width: int, *, light: bool = False
    ) -> ClassMoments:
        """Return the moments of no data, the neutral element of ``merge``."""
        mean = torch.zeros(num_classes, width, dtype=torch.float64)
        scatter = None if light else mean.new_zeros(width, width)
        return cls(
            mean.new_zeros(num_classes), mean, scatter, mean.new_zeros(num_classes)
        )

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, num_classes: int, *, light: bool = False
    ) -> ClassMoments:
        """Compute the moments of some samples, in float64, where the features are.

        Args:
            features: Features of any floating type, with shape :math:`(n, d)`.
            labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
            num_classes: The number of classes :math:`K`.
            light: Whether to leave out the :math:`(d, d)` scatter.

        Returns:
            The moments of these samples.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no index in :math:`[0, K)`.
        """
        check_rows(features, labels)
        labels = class_indices(labels, num_classes)
        origin = near(features)
        about = moments_about(origin, features, labels, num_classes, light=light)
        return about.moved(origin)

    @property
    def light(self) -> bool:
        """Whether the :math:`(d, d)` scatter was left out."""
        return self.scatter is None

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

    def _merged(self, other: ClassMoments) -> ClassMoments:
        count = self.count + other.count
        # A class unseen by both keeps mean zero: its weight is 0 / 1, not 0 / 0.
        weight = other.count / count.clamp(min=1)
        delta = other.mean - self.mean
        # Zero where either side has no samples, so their zero means cannot enter.
        shift = (self.count * weight)[:, None] * delta
        scatter = None
        if self.scatter is not None and other.scatter is not None:
            scatter = (self.scatter + other.scatter).addmm_(delta.T, shift)
        return ClassMoments(
            count,
            self.mean + weight[:, None] * delta,
            scatter,
            self.trace + other.trace + (delta * shift).sum(1),
        )

    def moved(self, offset: Float64[Tensor, " d"]) -> ClassMoments:
        """Return the moments of the same features with ``offset`` added to each."""
        seen = (self.count > 0)[:, None]
        mean = torch.where(seen, self.mean + offset, self.mean)
        return ClassMoments(self.count, mean, self.scatter, self.trace)


def near(features: Tensor) -> Float64[Tensor, " d"]:
    """Return a point near the features: the mean of the first few of them.

    It is rounded to their precision, so that subtracting it from most of them is exact.
    """
    first = features[:_BLOCK_ROWS].detach().to(torch.float64)
    point = first.mean(0) if len(first) else first.sum(0)
    return point.to(features.dtype).to(torch.float64)


def moments_about(
    origin: Float64[Tensor, " d"],
    features: Tensor,
    labels: Int64[Tensor, " n"],
    num_classes: int,
    *,
    light: bool = False,
) -> ClassMoments:
    r"""Return the moments of :math:`h - o` for a fixed origin :math:`o`.

    Args:
        origin: The point :math:`o`, with shape :math:`(d,)`.
        features: Finite features :math:`h`, with shape :math:`(n, d)`.
        labels: Valid class indices, with shape :math:`(n,)`.
        num_classes: The number of classes :math:`K`.
        light: Whether to leave out the :math:`(d, d)` scatter.

    Returns:
        The moments, with means relative to the origin.
    """
    empty = ClassMoments.empty(num_classes, len(origin), light=light)
    return folded(empty.to(origin.device), origin, features, labels)


def folded(
    moments: ClassMoments,
    origin: Float64[Tensor, " d"],
    features: Tensor,
    labels: Int64[Tensor, " n"],
) -> ClassMoments:
    """Return moments about an origin with further samples added.

    The same as merging with :func:`moments_about` of these samples, in one pass over
    them and one product of class means in place of two.

    Args:
        moments: Moments of other samples, with means relative to the origin.
        origin: The origin, with shape :math:`(d,)`.
        features: Finite features, with shape :math:`(n, d)`.
        labels: Valid class indices, with shape :math:`(n,)`.
    """
    parts = max(1, len(labels) // chunk_rows(moments.num_classes))
    chunks = zip(
        features.detach().tensor_split(parts), labels.tensor_split(parts), strict=True
    )
    for h, y in chunks:
        moments = _chunk_folded(moments, origin, h, y)
    return moments


def chunk_rows(num_classes: int) -> int:
    """Return how many rows are worth one Chan update."""
    wanted = min(_CHUNK_ROWS_PER_CLASS * num_classes, _MOST_CHUNK_ROWS)
    return max(_CHUNK_ROWS, wanted)


def _chunk_folded(
    moments: ClassMoments, origin: Tensor, features: Tensor, labels: Tensor
) -> ClassMoments:
    r"""Sum about a centre :math:`c_k` near the mean, and move to the mean afterwards.

    .. math::
        S_k \mathrel{+}= \sum_i (h_i - c_k)(h_i - c_k)^\top
        - n_k (\mu_k - c_k)(\mu_k - c_k)^\top

    The centre is the mean so far, or the first sample of a class. What the second term
    takes away is then at most the number of rows here times what remains, so no more
    digits are lost than in a sum of that many terms.
    """
    centre = _centres(moments, origin, features, labels)
    relative = centre - origin
    total, trace = torch.zeros_like(centre), moments.trace.clone()
    scatter = None if moments.scatter is None else moments.scatter.clone()
    for h, y in _blocks(features, labels):
        centred = h - centre.index_select(0, y)
        total.index_add_(0, y, centred)
        trace.index_add_(0, y, torch.linalg.vector_norm(centred, dim=1).square_())
        if scatter is not None:
            add_gram(scatter, centred)
    # What rounding the centre has moved it away from the mean so far.
    total += moments.count[:, None] * (moments.mean - relative)
    added = torch.bincount(labels, minlength=len(trace))
    count = moments.count + added
    step = total / count.clamp(min=1)[:, None]
    if scatter is not None:
        add_gram(scatter, step, total, sign=-1)
        mirror(scatter)
    trace = (trace - (step * total).sum(1)).clamp_(min=0)
    mean = torch.where((added > 0)[:, None], relative + step, moments.mean)
    return ClassMoments(count, mean, scatter, trace)


def _centres(
    moments: ClassMoments, origin: Tensor, features: Tensor, labels: Tensor
) -> Tensor:
    """Return the mean so far of each class, or the first sample of a new one."""
    centre = moments.mean + origin
    new = moments.count == 0
    if not bool(new.any()):
        return centre
    rows = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(new, len(rows), dtype=torch.int64)
    first.scatter_reduce_(0, labels, rows, "amin")
    new &= first < len(rows)
    centre[new] = features[first[new]].to(torch.float64)
    return centre


def _blocks(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a few rows at a time, as many as a core's cache holds in float64."""
    rows = max(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, features.shape[1]))
    parts = -(-len(labels) // rows) or 1
    yield from zip(
        features.tensor_split(parts), labels.tensor_split(parts), strict=True
    )


def check_rows(features: Tensor, labels: Tensor) -> None:
    """Check that there is one row of features for each label.

    Raises:
        ShapeError: If there is not.
    """
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
