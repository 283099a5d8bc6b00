r"""By how much samples are classified rightly: the distribution of logit margins.

References:
    | Spectrally-normalized margin bounds for neural networks
    | (Bartlett, Foster & Telgarsky, 2017), https://arxiv.org/abs/1706.08498
    | Generalized Neural Collapse for a Large Number of Classes
    | (Jiang et al., 2023), https://arxiv.org/abs/2310.05351
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices, listed, undefined
from layerpeel.measurement.statistics.statistic import Statistic

# Bins are symmetric about zero and grow by 2^(1/8) from 2^-12 to 2^16. They are fixed,
# so that histograms merge as sums; smaller margins share the middle bin, larger ones
# the outermost.
_PER_OCTAVE = 8
_SMALLEST, _LARGEST = -12, 16
_SIDE = _PER_OCTAVE * (_LARGEST - _SMALLEST) + 1
MARGIN_BINS = 2 * _SIDE + 1


@dataclass(frozen=True, eq=False)
class Margins(Statistic):
    r"""Distribution over each class of the margins :math:`z_y - \max_{j \neq y} z_j`.

    A sample is classified rightly where its margin is positive. Moments and extremes
    are exact. Quantiles come from a histogram whose bins are 9 % wide: they are off by
    at most 4.5 % for margins between :math:`2^{-12}` and :math:`2^{16}`, and by
    :math:`2^{-12}` below. Memory is :math:`O(K)`.

    Attributes:
        count: Samples of each class, with shape :math:`(K,)`.
        mean: Mean margin of each class, with shape :math:`(K,)`; zero without samples.
        scatter: Sum of squares about the mean, with shape :math:`(K,)`.
        low: Smallest margin of each class, with shape :math:`(K,)`.
        high: Largest margin of each class, with shape :math:`(K,)`.
        histogram: Samples in each bin, with shape :math:`(K, 451)`.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 6.0]])
        >>> margins = Margins.of(logits, torch.tensor([0, 0, 1]))
        >>> margins.class_means.tolist(), margins.low.tolist()
        ([0.5, 4.0], [-1.0, 4.0])
        >>> margins.quantile(1.0)
        4.0
    """

    count: Int64[Tensor, " K"]
    mean: Float64[Tensor, " K"]
    scatter: Float64[Tensor, " K"]
    low: Float64[Tensor, " K"]
    high: Float64[Tensor, " K"]
    histogram: Int64[Tensor, "K bins"]

    @classmethod
    def empty(cls, num_classes: int) -> Margins:
        """Return the distribution of no data, the neutral element of ``merge``."""
        nothing = torch.zeros(0, dtype=torch.float64)
        return cls.of_values(nothing, nothing.long(), num_classes)

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Margins:
        """Compute the margins of some samples.

        Args:
            logits: Logits of any floating type, with shape :math:`(n, K)`.
            labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.

        Raises:
            ShapeError: If there are fewer than two logits, or not one label a sample.
            LabelError: If a label is no index in :math:`[0, K)`.
        """
        values = logit_margins(logits, labels)
        return cls.of_values(values, labels.long(), logits.shape[1])

    @classmethod
    def of_values(
        cls,
        margins: Float64[Tensor, " n"],
        labels: Int64[Tensor, " n"],
        num_classes: int,
    ) -> Margins:
        """Return the distribution of margins that were computed before."""
        count = torch.bincount(labels, minlength=num_classes)
        zeros = margins.new_zeros(num_classes)
        mean = zeros.index_add(0, labels, margins) / count.clamp(min=1)
        squares = (margins - mean[labels]).square()
        scatter = zeros.index_add(0, labels, squares)
        infinite = torch.full_like(mean, torch.inf)
        low = infinite.scatter_reduce(0, labels, margins, "amin")
        high = (-infinite).scatter_reduce(0, labels, margins, "amax")
        cells = labels * MARGIN_BINS + _bin_of(margins)
        histogram = torch.bincount(cells, minlength=num_classes * MARGIN_BINS)
        return cls(
            count, mean, scatter, low, high, histogram.view(num_classes, MARGIN_BINS)
        )

    @property
    def class_means(self) -> Float64[Tensor, " K"]:
        """Mean margin of each class; NaN for classes without samples."""
        return self.mean.masked_fill(self.count == 0, torch.nan)

    @property
    def class_variances(self) -> Float64[Tensor, " K"]:
        """Variance of the margins of each class; NaN for classes without samples."""
        return self.scatter / self.count

    def quantile(self, share: float, classes: Sequence[int] | None = None) -> float:
        """Return the margin below which a share of the samples lies.

        Args:
            share: A number from 0 to 1; 0 gives the smallest margin and 1 the largest.
            classes: Class indices to look at; all when omitted.

        Returns:
            The quantile, at the resolution stated above; NaN with a warning if these
            classes have no samples.

        Raises:
            ValueError: If the share lies outside :math:`[0, 1]`, or a class is no index
                in :math:`[0, K)`.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"`share` must lie in [0, 1]; got {share!r}.")
        rows = slice(None) if classes is None else self._rows(classes)
        below = self.histogram[rows].sum(0).cumsum(0)
        total = int(below[-1])
        if not total:
            return undefined(
                "A quantile of margins is undefined (NaN): the classes have no samples."
            )
        low, high = float(self.low[rows].min()), float(self.high[rows].max())
        rank = min(max(1.0, share * total), total)
        index = int(torch.searchsorted(below, torch.tensor(rank).to(below.device)))
        if share in (0, 1):
            return high if share else low
        return min(max(_middle_of(index), low), high)

    def _rows(self, classes: Sequence[int]) -> list[int]:
        known = range(len(self.count))
        outside = [k for k in classes if isinstance(k, bool) or k not in known]
        if outside:
            raise ValueError(
                f"`classes` must be class indices in [0, {len(known)}); got "
                f"{listed(outside)}."
            )
        return [int(k) for k in classes]

    def _merged(self, other: Margins) -> Margins:
        count = self.count + other.count
        delta = other.mean - self.mean
        step = delta * other.count / count.clamp(min=1)
        return Margins(
            count,
            # Zero where either side has no samples, so their zero means cannot enter.
            torch.where(self.count > 0, self.mean + step, other.mean),
            self.scatter + other.scatter + self.count * delta * step,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.histogram + other.histogram,
        )


def logit_margins(logits: Tensor, labels: Tensor) -> Float64[Tensor, " n"]:
    r"""Return the margin :math:`z_y - \max_{j \neq y} z_j` of each sample.

    Args:
        logits: Logits of any floating type, with shape :math:`(n, K)`.
        labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.

    Raises:
        ShapeError: If there are fewer than two logits, or not one label a sample.
        LabelError: If a label is no index in :math:`[0, K)`.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ShapeError(
            "`logits` must have shape (n, K) with K >= 2: a margin is the distance to "
            f"another class; got {tuple(logits.shape)}."
        )
    indices = class_indices(labels, logits.shape[1])[:, None]
    if len(indices) != len(logits):
        raise ShapeError(
            f"`labels` must have shape ({len(logits)},) to match `logits`; got "
            f"({len(indices)},)."
        )
    z = logits.detach().to(torch.float64)
    others = z.scatter(1, indices, -torch.inf).amax(1)
    return z.gather(1, indices)[:, 0] - others


def _bin_of(margins: Tensor) -> Tensor:
    steps = (margins.abs().log2() - _SMALLEST) * _PER_OCTAVE
    # A margin of zero is at minus infinity steps.
    side = steps.floor().add(1).clamp(0, _SIDE).long()
    return _SIDE + torch.where(margins < 0, -side, side)


def _middle_of(index: int) -> float:
    """Return the geometric middle of a bin, whose ends are 2^(1/8) apart."""
    side = abs(index - _SIDE)
    if not side:
        return 0.0
    size = math.exp2(_SMALLEST + (side - 0.5) / _PER_OCTAVE)
    return size if index > _SIDE else -size
