r"""Which neurons of a layer to keep, and the consumer that makes up for the others.

The neurons left out are replaced by their best linear reconstruction from those kept,
:math:`\hat h = \mu + A^\top (h_S - \mu_S)` with :math:`A = G_{SS}^{-1} G_{S:}`. A linear
consumer :math:`V h + b` absorbs it, so that nothing is left to compute:

.. math::
    V_S' = V A^\top, \qquad b' = b + V (\mu - A^\top \mu_S) .

What that changes in the output is known from the covariance alone, without another look
at the data.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: chunks
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._checks import (
    NonFiniteError,
    ShapeError,
    as_number,
    at_least,
    one_of,
    undefined,
)
from layerpeel._tolerances import EPS, covariance_rank_tolerance
from layerpeel.measurement.clones.chunks import draw_permutation
from layerpeel.measurement.clones.keeping.measured_change import MeasuredChange
from layerpeel.measurement.clones.keeping.pivots import Pivots, pivots
from layerpeel.measurement.clones.reconstruction.rounding import rounding_scatter
from layerpeel.measurement.statistics.covariance import Covariance

SELECTIONS = ("pivoted", "random")
"""How neurons are selected: those that leave least, or a uniformly random chunk."""


@dataclass(frozen=True)
class OutputChange:
    r"""How far a consumer's output moves on some data.

    Attributes:
        rms: Root mean square over samples of :math:`\|\Delta z\|`.
        relative: The same relative to that of :math:`z` about its mean: constants say
            nothing about an input. Known to about :math:`\sqrt{W \varepsilon}`.
        largest: A bound, :math:`\|\Delta z\| \le \sqrt n \, \mathrm{rms}`, which no
            sample of this data exceeds.
    """

    rms: float
    relative: float
    largest: float


@dataclass(frozen=True, eq=False)
class Kept:
    r"""Neurons that were kept, with the reconstruction folded into their consumer.

    Attributes:
        neurons: The neurons :math:`S` kept, ascending, with shape :math:`(w,)`.
        order: The same in the order they were selected.
        rank: How many of them are no linear combination of others kept.
        coefficients: The coefficients :math:`A`, with shape :math:`(w, W)`.
        offset: :math:`\mu - A^\top \mu_S`, with shape :math:`(W,)`.
        weight: The consumer's new weights, with shape :math:`(C, w)`; without a
            consumer those that give back the layer, :math:`C = W`.
        bias: The consumer's new bias, with shape :math:`(C,)`.
        change: How far the output moves on the data of the covariance.
        residual: Root mean square of :math:`\|h - \hat h\|` on that data.
        relative_changes: Relative change of the output with the first 0, 1, 2, ...
            neurons of ``order``, with shape :math:`(w + 1,)`.
        tolerance: The tolerance that was met after the floor, or NaN for a width.
        measured: What changed on the samples that the covariance is of, where a profile
            had them to look at again.
        held_out: What changed on held-out samples.
    """

    neurons: Int64[Tensor, " w"]
    order: Int64[Tensor, " w"]
    rank: int
    coefficients: Float64[Tensor, "w W"]
    offset: Float64[Tensor, " W"]
    weight: Float64[Tensor, "C w"]
    bias: Float64[Tensor, " C"]
    change: OutputChange
    residual: float
    relative_changes: Tensor
    tolerance: float
    measured: MeasuredChange | None = None
    held_out: MeasuredChange | None = None

    @property
    def width(self) -> int:
        """The number of neurons kept."""
        return len(self.neurons)

    def outputs(self, features: Tensor) -> Float64[Tensor, "n C"]:
        """Return the new consumer's outputs for features of the whole layer."""
        chunk = features[:, self.neurons].to(torch.float64)
        return chunk @ self.weight.T + self.bias

    def consumer_bound(self, lipschitz: float) -> float:
        r"""Return a bound on the root-mean-square change of a non-linear consumer.

        Args:
            lipschitz: A Lipschitz constant of the consumer, in the Euclidean norm. For a
                linear one it is its largest singular value.
        """
        return lipschitz * self.residual

    def decision_bound(self, margins: Tensor) -> float:
        r"""Return a bound on the share of samples whose decision changes.

        A decision changes only where :math:`\sqrt 2 \|\Delta z\|` reaches the margin
        between the two largest logits. With the root mean square :math:`r` of
        :math:`\|\Delta z\|` and Chebyshev's inequality that is a share of at most

        .. math::
            \min_t \; P(m < t) + 2 r^2 / t^2 .

        Args:
            margins: The largest logit less the second, of each sample of the same data,
                with shape :math:`(n,)`.

        Raises:
            ShapeError: If there is no margin, or they have another shape.
        """
        if margins.ndim != 1 or not len(margins):
            raise ShapeError(
                "`margins` must have shape (n,), one per sample, with n >= 1; got "
                f"{tuple(margins.shape)}."
            )
        rising = margins.detach().to(torch.float64).clamp(min=0).sort().values
        below = torch.searchsorted(rising, rising) / len(rising)
        # A margin of zero bounds nothing: 2 r^2 / 0 is infinite, or 0 / 0.
        chance = 2 * self.change.rms**2 / rising.square()
        shares = (below + chance).nan_to_num(nan=1.0)
        return min(1.0, float(shares.min()))


def keep(
    covariance: Covariance,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    width: int | None = None,
    tolerance: float | None = None,
    select: str = "pivoted",
    generator: torch.Generator | None = None,
    eps: float = EPS,
) -> Kept:
    r"""Select neurons to keep, and fold the reconstruction of all into the consumer.

    Args:
        covariance: Covariance of the layer's :math:`W` neurons.
        weight: Weights of the linear consumer, with shape :math:`(C, W)`. Neurons are
            then chosen by what the consumer's output loses; otherwise by what the layer
            itself does.
        bias: Its bias, with shape :math:`(C,)`; zero when omitted.
        width: How many neurons to keep. Those beyond the numerical rank get weight 0.
        tolerance: Or as many as it takes for a relative root-mean-square change of the
            output of at most this; floored at :math:`\sqrt{W \varepsilon}`, below which
            a covariance knows nothing. At least one is kept.
        select: ``"pivoted"``, each the best beside those before it (Cholesky with
            pivots), or ``"random"``, a uniformly random chunk for comparison.
        generator: Where randomness comes from; needed for ``"random"``.
        eps: The unit of the dtype that features were computed in, such as
            ``torch.finfo(torch.float32).eps``; what it leaves of a copy is none of its
            own.

    Returns:
        The neurons, the new consumer, and what changes.

    Raises:
        ValueError: If not exactly one of ``width`` and ``tolerance`` is given, either
            is out of range, the selection is unknown or lacks its generator, or the
            covariance is of no data.
        ShapeError: If the weights or the bias do not fit.
        NonFiniteError: If the covariance, the weights or the bias are not finite.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> h = torch.randn(50, 3, generator=g, dtype=torch.float64).repeat(1, 4)
        >>> v = torch.randn(2, 12, generator=g, dtype=torch.float64)
        >>> kept = keep(Covariance.of(h), v, tolerance=0.0)
        >>> kept.width, bool((kept.outputs(h) - h @ v.T).abs().max() < 1e-12)
        (3, True)
    """
    covariance = _usable(covariance)
    order = _order(covariance.width, select, generator)
    limit = _limit(covariance.width, width, tolerance, eps)
    if weight is not None:
        weight = _fitting("weight", weight, (-1, covariance.width))
    chosen = pivots(
        covariance.scatter,
        weight,
        width=None if width is None else int(width),
        tolerance=0.0 if width is not None else limit,
        order=order,
        eps=eps,
        noise=rounding_scatter(covariance, eps),
    )
    return _folded(covariance, chosen, weight, bias, limit)


def output_change(
    covariance: Covariance,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    neurons: Tensor,
) -> OutputChange:
    r"""Return how far a consumer's output moves on the data of a covariance, exactly.

    With :math:`\Delta z = D h + e` for the difference of the two maps it is
    :math:`\mathrm{tr}(D G D^\top) / n + \|D \mu + e\|^2`: the second term is the shift
    of the mean on data other than what the new consumer was computed from.

    Args:
        covariance: Covariance of any data, such as held-out one, of the whole layer.
        before: Weights, with shape :math:`(C, W)`, and bias of the consumer.
        after: Weights, with shape :math:`(C, w)`, and bias of the new one.
        neurons: The neurons that the new one reads, with shape :math:`(w,)`.

    Returns:
        The change; relative to an output that does not vary it is NaN with a warning.

    Raises:
        ShapeError: If the shapes disagree.
        ValueError: If the covariance is of no data.
        NonFiniteError: If something is not finite.
    """
    covariance = _usable(covariance)
    weight = _fitting("before[0]", before[0], (-1, covariance.width))
    bias = _fitting("before[1]", before[1], (len(weight),))
    new_weight = _fitting("after[0]", after[0], (len(weight), len(neurons)))
    new_bias = _fitting("after[1]", after[1], (len(weight),))
    difference = weight.index_add(1, neurons.cpu(), new_weight, alpha=-1)
    shift = difference @ covariance.mean + (bias - new_bias)
    count = float(covariance.count)
    spread = _trace(difference, covariance.scatter) / count
    rms = math.sqrt(spread + float(shift.square().sum()))
    scale = math.sqrt(_trace(weight, covariance.scatter) / count)
    return OutputChange(rms, _relative(rms, scale), math.sqrt(count) * rms)


def _folded(
    covariance: Covariance,
    chosen: Pivots,
    weight: Tensor | None,
    bias: Tensor | None,
    limit: float,
) -> Kept:
    """Put the reconstruction from chosen neurons into a consumer."""
    if weight is None:
        weight = torch.eye(covariance.width, dtype=torch.float64)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    bias = _fitting("bias", bias, (len(weight),))
    neurons = chosen.taken.sort().values
    coefficients = weight.new_zeros(len(neurons), covariance.width)
    rows = torch.searchsorted(neurons, chosen.neurons)
    coefficients[rows] = chosen.coefficients
    offset = covariance.mean - covariance.mean[neurons] @ coefficients
    new = weight @ coefficients.T, bias + weight @ offset
    return Kept(
        neurons=neurons,
        order=chosen.taken,
        rank=len(chosen.neurons),
        coefficients=coefficients,
        offset=offset,
        weight=new[0],
        bias=new[1],
        change=output_change(covariance, (weight, bias), new, neurons),
        residual=_residual(covariance, coefficients, neurons),
        relative_changes=chosen.left.sqrt(),
        tolerance=limit,
    )


def _residual(covariance: Covariance, coefficients: Tensor, neurons: Tensor) -> float:
    """Return the root mean square of what a reconstruction leaves of the layer."""
    left = torch.eye(covariance.width, dtype=torch.float64)
    left = left.index_add(1, neurons, coefficients.T, alpha=-1)
    return math.sqrt(_trace(left, covariance.scatter) / float(covariance.count))


def _trace(map_: Tensor, scatter: Tensor) -> float:
    r"""Return :math:`\mathrm{tr}(D G D^\top)`, which rounding may leave below zero."""
    return max(0.0, float(((map_ @ scatter) * map_).sum()))


def _relative(rms: float, scale: float) -> float:
    if scale == 0:
        return undefined(
            "The relative change of an output that does not vary is undefined (NaN)."
        )
    return rms / scale


def _usable(covariance: Covariance) -> Covariance:
    if not bool(covariance.count):
        raise ValueError(
            "`covariance` must be of at least one sample; got one of no data."
        )
    if not bool(covariance.scatter.isfinite().all() & covariance.mean.isfinite().all()):
        raise NonFiniteError(
            "`covariance` must be finite; it holds NaN or infinity. Check the features "
            "it was accumulated from."
        )
    return covariance.to("cpu")


def _fitting(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor in float64 on the CPU if its shape fits; -1 fits anything."""
    fits = value.ndim == len(shape) and all(
        wanted in (-1, got) for wanted, got in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("C" if size == -1 else str(size) for size in shape)
        raise ShapeError(
            f"`{name}` must have shape ({wanted}{',' if len(shape) == 1 else ''}); got "
            f"{tuple(value.shape)}."
        )
    value = value.detach().to("cpu", torch.float64)
    if not bool(value.isfinite().all()):
        raise NonFiniteError(f"`{name}` must be finite; it holds NaN or infinity.")
    return value


def _limit(
    neurons: int, width: int | None, tolerance: float | None, eps: float
) -> float:
    """Check width or tolerance; return the tolerance in force, NaN for a width."""
    if (width is None) == (tolerance is None):
        raise ValueError(
            "Exactly one of `width` and `tolerance` must be given; got "
            f"{'neither' if width is None else 'both'}."
        )
    if width is not None:
        if at_least("width", width, 1) > neurons:
            raise ValueError(
                f"`width` must be at most the layer's, {neurons}; got {width}."
            )
        return math.nan
    number = as_number(tolerance)
    if number is None or not 0 <= number < math.inf:
        raise ValueError(
            "`tolerance` must be a finite number of at least 0, a relative change of "
            f"the output; got {tolerance!r}."
        )
    return max(number, covariance_rank_tolerance(neurons, eps))


def _order(
    neurons: int, select: str, generator: torch.Generator | None
) -> Tensor | None:
    if one_of("select", select, SELECTIONS) == "pivoted":
        return None
    if generator is None:
        raise ValueError(
            "`generator` must be given for a random selection; pass "
            "`generator=torch.Generator().manual_seed(0)`."
        )
    return draw_permutation(neurons, generator)
