r"""The chunk error at every width without drawing a chunk.

Neuron :math:`j` contributes :math:`c_j = V_{:j} h_j` to the logits of a sample. Over
chunks of :math:`w` of :math:`W` neurons, drawn without replacement, the logits have

.. math::
    \text{mean}\; b + w \bar c, \qquad
    \text{covariance}\; w \Bigl(1 - \frac{w}{W}\Bigr) S, \qquad
    S = \frac{1}{W - 1} \sum_j (c_j - \bar c)(c_j - \bar c)^\top ,

exactly; the factor in brackets is that of a finite population. For all but the smallest
chunks they are close to Gaussian, and the probability of an error is the one that a
Gaussian has of leaving the cone where the logit of the class is the largest.

Any layer has such a curve: an error that falls with the width of a chunk is no sign of
clones by itself.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
    | Numerical Computation of Multivariate Normal Probabilities
    | (Genz, 1992), https://doi.org/10.1080/10618600.1992.10477010
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import MergeError, ShapeError, at_least, class_indices, undefined
from layerpeel._tolerances import EPS
from layerpeel.measurement.clones.chunks import checked_size
from layerpeel.measurement.clones.errors.chunk_errors import checked_classifier
from layerpeel.measurement.statistics.moments import check_rows
from layerpeel.measurement.statistics.statistic import Statistic

# Contributions held at a time: 8 MB.
_BLOCK_ENTRIES = 2**20

# The smallest probability that still has a quantile.
_LEAST = 1e-300


@dataclass(frozen=True, eq=False)
class GaussianCurve(Statistic):
    """Expected errors of random chunks at some widths, accumulated over samples.

    Attributes:
        count: The number of samples :math:`n`.
        widths: The sizes of chunks, with shape :math:`(m,)`.
        expected: The expected number of errors at each, with shape :math:`(m,)`.

    Example:
        >>> h = torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, -1.0, -1.0, 0.0]])
        >>> weight = torch.tensor([[1.0] * 4, [0.0] * 4])
        >>> curve = GaussianCurve.of(h, torch.tensor([0, 0]), weight, None, [2, 4])
        >>> [round(value, 3) for value in curve.errors.tolist()]
        [0.198, 0.0]
    """

    count: Int64[Tensor, ""]
    widths: Int64[Tensor, " m"]
    expected: Float64[Tensor, " m"]

    @classmethod
    def empty(cls, widths: Sequence[int]) -> GaussianCurve:
        """Return the curve of no data, the neutral element of ``merge``."""
        zeros = torch.zeros(len(widths), dtype=torch.float64)
        sizes = torch.tensor(list(widths), dtype=torch.int64)
        return cls(torch.tensor(0), sizes, zeros)

    @classmethod
    def of(
        cls,
        features: Tensor,
        labels: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        widths: Sequence[int],
        *,
        points: int = 64,
    ) -> GaussianCurve:
        r"""Compute the expected errors of some samples.

        With two classes in closed form; with more by Genz's sequential conditioning on a
        lattice, whose points differ from sample to sample and need no generator. Time is
        :math:`O(n W K^2)` for the covariances, and :math:`O(n K^2)` for each width and
        point.

        Args:
            features: Of the whole layer, with shape :math:`(n, W)`.
            labels: Class indices, with shape :math:`(n,)`.
            weight: Classifiers on the layer, with shape :math:`(K, W)`, with at least
                two classes.
            bias: Their bias, with shape :math:`(K,)`, or ``None``.
            widths: Sizes of chunks, from 1 to :math:`W`.
            points: The number of lattice points for each sample and width.

        Raises:
            ShapeError: If the shapes disagree, or there is a single logit.
            LabelError: If a label is no class index.
            ValueError: If a width is no size of a chunk.
        """
        v, b = checked_classifier(weight, bias)
        check_rows(features, labels)
        if len(v) < 2 or features.shape[1] != v.shape[1]:
            raise ShapeError(
                "`weight` must have shape (K, W) with K >= 2, and `features` (n, W); "
                f"got {tuple(v.shape)} and {tuple(features.shape)}."
            )
        at_least("points", points, 1)
        sizes = [checked_size(size, v.shape[1]) for size in widths]
        y = class_indices(labels, len(v)).cpu()
        curve, seen = cls.empty(sizes), 0
        expected = curve.expected.clone()
        rows = max(1, _BLOCK_ENTRIES // v.numel())
        for start in range(0, len(y), rows):
            h = features[start : start + rows].detach().to("cpu", torch.float64)
            margins = _Margins.of(h, y[start : start + rows], v, b)
            grid = _lattice(seen, len(h), points, len(v) - 2)
            for i, size in enumerate(sizes):
                expected[i] += margins.errors(size, v.shape[1], grid).sum()
            seen += len(h)
        return cls(torch.tensor(seen), curve.widths, expected)

    @property
    def errors(self) -> Float64[Tensor, " m"]:
        """The expected errors; NaN with a warning without samples."""
        if not int(self.count):
            undefined("The Gaussian curve is undefined (NaN): it has no samples.")
        return self.expected / self.count

    def _merged(self, other: GaussianCurve) -> GaussianCurve:
        if not torch.equal(self.widths, other.widths):
            raise MergeError(
                "Two GaussianCurve values merge when they have the same widths; got "
                f"{self.widths.tolist()} and {other.widths.tolist()}."
            )
        expected = self.expected + other.expected
        return GaussianCurve(self.count + other.count, self.widths, expected)


@dataclass(frozen=True, eq=False)
class _Margins:
    """What one neuron contributes to the margins over all rivals of the class.

    Attributes:
        mean: With shape :math:`(n, K - 1)`, least certain rival first.
        factor: A Cholesky factor of the covariance over neurons.
        bias: What the bias contributes to the margins.
    """

    mean: Float64[Tensor, "n R"]
    factor: Float64[Tensor, "n R R"]
    bias: Float64[Tensor, "n R"]

    @classmethod
    def of(
        cls,
        features: Float64[Tensor, "n W"],
        labels: Int64[Tensor, " n"],
        weight: Float64[Tensor, "K W"],
        bias: Float64[Tensor, " K"],
    ) -> _Margins:
        """Compute them, centred before they are squared."""
        classes, width = weight.shape
        rivals = torch.arange(classes - 1) + (
            torch.arange(classes - 1) >= labels[:, None]
        )
        shares = (weight[labels][:, None] - weight[rivals]) * features[:, None]
        mean = shares.mean(2)
        centred = shares - mean[..., None]
        covariance = centred @ centred.mT / max(1, width - 1)
        # Genz: conditioning on the least certain first varies least.
        deviation = covariance.diagonal(dim1=1, dim2=2).sqrt()
        order = (mean / deviation.clamp(min=_LEAST)).argsort(1)
        covariance = covariance.take_along_dim(order[..., None], 1)
        covariance = covariance.take_along_dim(order[:, None], 2)
        offset = (bias[labels][:, None] - bias[rivals]).take_along_dim(order, 1)
        return cls(
            mean.take_along_dim(order, 1), _semidefinite_factors(covariance), offset
        )

    def errors(
        self, size: int, width: int, grid: Float64[Tensor, "n p Q"]
    ) -> Float64[Tensor, " n"]:
        """Return the probability that some margin of a chunk is not positive."""
        mean = size * self.mean + self.bias
        factor = self.factor * math.sqrt(size * (1 - size / width))
        shape = grid.shape[:2]
        right = torch.ones(shape, dtype=torch.float64)
        drawn: list[Tensor] = []
        for k in range(mean.shape[1]):
            centre = mean[:, k, None].expand(shape)
            if k:
                along = torch.stack(drawn, 2) @ factor[:, k, :k, None]
                centre = centre + along[..., 0]
            spread = factor[:, k, k, None].expand(shape)
            # Without spread the margin is certain; a tie counts as an error.
            certain = torch.where(centre > 0, torch.inf, -torch.inf)
            bound = torch.where(spread > 0, centre / spread, certain)
            share = torch.special.ndtr(bound)
            right = right * share
            if k + 1 < mean.shape[1]:
                quantile = (share * grid[..., k]).clamp(_LEAST, 1 - EPS)
                drawn.append(-torch.special.ndtri(quantile))
        return 1 - right.mean(1)


def _semidefinite_factors(
    matrices: Float64[Tensor, "n R R"],
) -> Float64[Tensor, "n R R"]:
    """Return Cholesky factors, with zero columns where nothing is left."""
    factors = torch.zeros_like(matrices)
    size = matrices.shape[1]
    for k in range(size):
        done = factors[:, k:, :k] @ factors[:, k, :k, None]
        column = matrices[:, k:, k] - done[..., 0]
        least = size * EPS * matrices[:, k, k]
        pivot = torch.where(column[:, 0] > least, column[:, 0], torch.inf)
        factors[:, k:, k] = column / pivot.sqrt()[:, None]
    return factors


def _lattice(
    first: int, count: int, points: int, dimensions: int
) -> Float64[Tensor, "n p Q"]:
    """Return a rank-one lattice in the unit cube, shifted from sample to sample.

    Multiples of roots of the first primes, as Genz (1992) takes them, both for the
    points and, along other roots, for the shifts.
    """
    roots = torch.tensor(_primes(2 * dimensions), dtype=torch.float64).sqrt()
    samples = torch.arange(first, first + count, dtype=torch.float64)
    steps = torch.arange(1, points + 1, dtype=torch.float64)
    shift = samples[:, None] * roots[dimensions:]
    lattice = steps[:, None] * roots[:dimensions] + shift[:, None]
    # A fold makes the integrand periodic, and keeps clear of the ends.
    return (2 * (lattice % 1) - 1).abs().clamp(EPS, 1 - EPS)


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % p for p in primes if p * p <= candidate):
            primes.append(candidate)
        candidate += 1
    return primes
