"""Plateaus of a training curve: where a loss hardly falls while the steps double."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import NonFiniteError, ShapeError, positive

Numbers = Sequence[float] | Tensor


@dataclass(frozen=True)
class Plateau:
    """A stretch of a training curve on which the loss hardly falls.

    Attributes:
        first: The index of its first record.
        last: The index of its last record.
        flattest: The index of the record where the loss falls least.
        start: The step it begins at.
        stop: The step it ends at.
        loss: The loss where it is flattest.
        fall: The share of the loss that is lost there per doubling of the steps.
        is_last: Whether the curve ends on it.
    """

    first: int
    last: int
    flattest: int
    start: int
    stop: int
    loss: float
    fall: float
    is_last: bool

    @property
    def doublings(self) -> float:
        """How often the number of steps doubles on it."""
        return math.log2(self.stop / self.start)


def plateaus(
    steps: Numbers, losses: Numbers, *, fall: float = 0.05, doublings: float = 0.5
) -> tuple[Plateau, ...]:
    r"""Find the plateaus of a training curve.

    Between two records the loss falls, per doubling of the number of steps, by the share

    .. math:: s_k = 1 - (L_{k+1} / L_k)^{1 / \log_2 (t_{k+1} / t_k)} .

    A plateau is a maximal run of records over which :math:`|\log (1 - s_k)|` stays at or
    below :math:`-\log (1 - f)` for the share :math:`f` that is allowed, and over which
    the number of steps doubles at least ``doublings`` times. In the number of steps
    rather than in its logarithm every curve that flattens out would be one plateau after
    the other. The loss of a plateau is that at its flattest record; in the middle of all
    such, if there are several.

    Args:
        steps: The steps of the records, ascending and at least 1; log-spaced best.
        losses: The losses there, above zero.
        fall: The share of the loss that may be lost per doubling, in :math:`(0, 1)`.
        doublings: How often the steps have to double.

    Returns:
        The plateaus in their order; none of them share more than a record.

    Raises:
        ShapeError: If there are not as many losses as steps.
        NonFiniteError: If a loss is NaN or infinite.
        ValueError: If steps do not ascend from 1, a loss is not above zero, or a number
            is out of its range.

    Example:
        >>> steps = [1, 2, 4, 8, 16, 32, 64]
        >>> losses = [1.0, 0.5, 0.26, 0.25, 0.25, 0.24, 0.1]
        >>> plateau, = plateaus(steps, losses)
        >>> plateau.start, plateau.stop, plateau.loss
        (4, 32, 0.25)
    """
    if not 0 < fall < 1:
        raise ValueError(f"`fall` must be a share between 0 and 1; got {fall}.")
    positive("doublings", doublings)
    times, heights = _checked(steps, losses)
    per_doubling = heights.log().diff() / times.log2().diff()
    flat = (per_doubling.abs() <= -math.log1p(-fall)).tolist()
    found = [
        _plateau(times, heights, per_doubling, first, last)
        for first, last in _runs(flat)
        if float(times[last] / times[first]) >= 2**doublings * (1 - 1e-12)
    ]
    return tuple(found)


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last record of every run of flat stretches."""
    start: int | None = None
    for i, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = i
        if not flag and start is not None:
            yield start, i
            start = None


def _plateau(
    times: Tensor, heights: Tensor, per_doubling: Tensor, first: int, last: int
) -> Plateau:
    stretch = per_doubling[first:last].abs()
    least = (stretch == stretch.min()).nonzero().flatten()
    flattest = first + int(least[len(least) // 2])
    return Plateau(
        first=first,
        last=last,
        flattest=flattest,
        start=int(times[first]),
        stop=int(times[last]),
        loss=float(heights[flattest]),
        fall=-math.expm1(float(per_doubling[flattest])),
        is_last=last == len(times) - 1,
    )


def _checked(
    steps: Numbers, losses: Numbers
) -> tuple[Float64[Tensor, " r"], Float64[Tensor, " r"]]:
    times = torch.as_tensor(steps, dtype=torch.float64)
    heights = torch.as_tensor(losses, dtype=torch.float64)
    if times.ndim != 1 or times.shape != heights.shape:
        raise ShapeError(
            "There must be one loss per step, with shape (r,); got shapes "
            f"{tuple(times.shape)} and {tuple(heights.shape)}."
        )
    if not bool(heights.isfinite().all()):
        raise NonFiniteError(
            "Losses must be finite; some are NaN or infinite. Train with smaller steps."
        )
    if bool((times.diff() <= 0).any()) or bool((times < 1).any()):
        raise ValueError(
            "`steps` must ascend from 1 or later; these do not. Leave step 0 out."
        )
    if bool((heights <= 0).any()):
        raise ValueError("Losses must be above 0, for their logarithms; some are not.")
    return times, heights
