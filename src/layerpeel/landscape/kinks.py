"""How close samples are to the kinks of a network's activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerpeel.landscape.comparisons import Comparison
from layerpeel.landscape.functional import differentiable
from layerpeel.landscape.kink_watch import KinkWatch
from layerpeel.landscape.risk import Risk
from layerpeel.measurement.sources.pairs import Pair


@dataclass(frozen=True)
class Kinks:
    """The smallest distance of a pre-activation from a kink, over samples and units.

    Where one is on a kink and moves with the parameters, the risk may have no Hessian,
    and what is computed as one belongs to one side. One that stays where it is while the
    parameters move a little, as that of a ReLU of a ReLU that is off, is not counted.
    The distance of a maximum, as in max-pooling, is the gap between the two largest
    entries; ties of entries that stay equal are not counted.

    Functions are known by name: activations, clamps, maxima and minima, poolings with
    fixed windows, absolute and Huber losses. Others with kinks, comparisons such as
    ``torch.where``, and what compiled or scripted modules do inside are not seen. A
    kink may also cancel: that it is touched does not prove that there is no Hessian.

    Attributes:
        margin: The smallest distance; infinite for a smooth network.
        where: The path of the module that calls the activation of that distance, and
            the activation's name; empty for a smooth network.
        touching: How many pre-activations are on a kink, up to rounding.
        of: The number of pre-activations before functions with kinks, and of maxima.
    """

    margin: float
    where: str
    touching: int
    of: int

    @classmethod
    def empty(cls) -> Kinks:
        """Return what there is without data."""
        return cls(math.inf, "", 0, 0)

    def merge(self, other: Kinks) -> Kinks:
        """Return the kinks of both data sets."""
        nearer = self if self.margin <= other.margin else other
        return Kinks(
            nearer.margin,
            nearer.where,
            self.touching + other.touching,
            self.of + other.of,
        )

    @property
    def are_touched(self) -> bool:
        """Whether a pre-activation that moves with the parameters is on a kink."""
        return self.touching > 0

    @property
    def caution(self) -> str:
        """What to say about it; empty if no kink is touched."""
        if not self.are_touched:
            return ""
        return (
            f"{self.touching} of {self.of} pre-activations are on a kink, first at "
            f"{self.where}: the risk may have no Hessian there, and what is computed "
            "holds for one side. Move the point, or remove neurons whose weights are "
            "zero."
        )


def kinks(risk: Risk) -> Kinks:
    """Return how close the samples of a risk are to kinks, at its own point.

    Activations are seen as modules and as functions, ``x.relu()`` too. Where some are on
    a kink, the data are run twice more, with all parameters moved a little to both sides.

    Args:
        risk: The risk; see :meth:`Risk.of`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
        >>> model[0].weight.data.fill_(1.0), model[0].bias.data.fill_(-2.0)
        (tensor([[1.]]), tensor([-2.]))
        >>> data = [(torch.tensor([[1.0], [2.25]]), torch.zeros(2, 1))]
        >>> kinks(Risk.of(model, torch.nn.functional.mse_loss, data))
        Kinks(margin=0.25, where='1 (relu)', touching=0, of=2)
    """
    found, step = Kinks.empty(), _step(risk)
    for batch in risk.batches:
        look = _Look()
        _run(risk, batch, risk.point, look.note)
        if look.touched:
            for side in (step, -step):
                again = _SecondLook(look)
                _run(risk, batch, risk.point + side, again.note)
                again.check()
        found = found.merge(look.found())
    return found


def _run(
    risk: Risk, batch: Pair, at: Tensor, note: Callable[[str, Comparison], None]
) -> None:
    watch = KinkWatch(risk.model, note)
    with differentiable(), torch.no_grad(), watch.attached():
        risk.loss(batch, at)


def _step(risk: Risk) -> Tensor:
    """Return a small random step of all parameters.

    By the cube root of the unit roundoff: a term of second order in it is still seen.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(risk.size, generator=generator, dtype=torch.float64)
    size = float(risk.point.square().mean().sqrt()) or 1.0
    length: float = torch.finfo(risk.dtype).eps ** (1 / 3)
    return length * size * direction


@dataclass(eq=False)
class _Touched:
    """The rows of one call that are on a kink, and which of them are seen to move."""

    where: str
    comparison: Comparison
    leaders: Tensor | None
    rows: Tensor
    moved: Tensor

    def look(self, other: Comparison) -> None:
        """Compare with the same rows at other parameters."""
        if other.values.shape[1:] != self.comparison.values.shape[1:]:
            self.moved[:] = True
            return
        before, tied = self._gaps(self.comparison), self._tied()
        change = (self._gaps(other.of_rows(self.rows)) - before).abs()
        # A place stays the same number; entries of a maximum may differ by rounding.
        allowed = other.tolerance if self.comparison.among else 0.0
        self.moved |= (tied & ~(change <= allowed)).any(1)

    def found(self) -> Kinks:
        """Return the kinks that those that move are on."""
        count = int(self.moved.sum())
        if not count:
            return Kinks.empty()
        nearest = self._gaps(self.comparison).abs().amin(1)[self.moved]
        return Kinks(float(nearest.min()), self.where, count, 0)

    def _gaps(self, comparison: Comparison) -> Tensor:
        return comparison.gaps(self.leaders)

    def _tied(self) -> Tensor:
        return self._gaps(self.comparison).abs() <= self.comparison.tolerance


class _Look:
    """Notes distances from kinks, and keeps what is on one for a second look."""

    def __init__(self) -> None:
        self.touched: dict[int, _Touched] = {}
        self.calls: list[int] = []
        self._free = Kinks.empty()

    def note(self, where: str, comparison: Comparison) -> None:
        leaders = comparison.leaders
        nearest = comparison.gaps(leaders).abs().amin(1)
        on = nearest <= comparison.tolerance
        rows = on.nonzero()[:, 0]
        if len(rows):
            self.touched[len(self.calls)] = _Touched(
                where,
                comparison.of_rows(rows),
                None if leaders is None else leaders[rows],
                rows,
                torch.zeros_like(rows, dtype=torch.bool),
            )
        self.calls.append(len(nearest))
        # Of infinite distance where all are on a kink.
        margin = float(torch.where(on, torch.inf, nearest).min())
        self._free = self._free.merge(Kinks(margin, where, 0, len(nearest)))

    def found(self) -> Kinks:
        found = self._free
        for touched in self.touched.values():
            found = found.merge(touched.found())
        return found


class _SecondLook:
    """Sees what moves of that which a first look found on kinks."""

    def __init__(self, first: _Look) -> None:
        self._first = first
        self._calls: list[int] = []

    def note(self, where: str, comparison: Comparison) -> None:
        del where
        call = len(self._calls)
        self._calls.append(len(comparison.values))
        touched = self._first.touched.get(call)
        if touched is not None and self._calls == self._first.calls[: call + 1]:
            touched.look(comparison)

    def check(self) -> None:
        """Count all as moving if the pass itself is another one."""
        if self._calls != self._first.calls:
            for touched in self._first.touched.values():
                touched.moved[:] = True
