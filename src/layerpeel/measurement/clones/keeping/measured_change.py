"""What keeping some neurons changed, measured sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from layerpeel._checks import BatchError, undefined


@dataclass(frozen=True)
class MeasuredChange:
    r"""How outputs and decisions differ, on one set of data.

    Attributes:
        count: The number of samples.
        rms: Root mean square over samples of :math:`\|\Delta z\|`.
        relative: The same relative to that of :math:`z` about its mean.
        largest: The largest :math:`\|\Delta z\|` of a sample.
        decisions: The share of samples that are decided otherwise.
        error_before: The error of the classifier before; NaN where its outputs are no
            logits.
        error_after: The error after.
    """

    count: int
    rms: float
    relative: float
    largest: float
    decisions: float
    error_before: float
    error_after: float


def measure_change(
    samples: Iterable[tuple[Tensor, Tensor]],
    before: Callable[[Tensor], Tensor],
    after: Callable[[Tensor], Tensor],
    *,
    classifies: bool = True,
) -> MeasuredChange:
    """Run two consumers of a layer on the same features, and compare.

    Args:
        samples: Features with shape :math:`(n, W)` and labels with shape :math:`(n,)`.
        before: Gives outputs with shape :math:`(n, C)`, in float64.
        after: Gives those to compare.
        classifies: Whether outputs are logits of the classes that labels index.

    Returns:
        The change; relative to an output that does not vary it is NaN with a warning.

    Raises:
        BatchError: If there is no sample.
    """
    found = _Sums()
    for features, labels in samples:
        found.add(before(features), after(features), labels)
    if not found.count:
        raise BatchError("`samples` must hold at least one sample; they are empty.")
    return found.change(classifies=classifies)


class _Sums:
    """What is added up over batches; variances about running means (Chan et al.)."""

    def __init__(self) -> None:
        self.count = self.moved = self.wrong_before = self.wrong_after = 0
        self.squares = self.largest = self.spread = 0.0
        self.mean: Tensor | float = 0.0

    def add(self, before: Tensor, after: Tensor, labels: Tensor) -> None:
        """Add a batch of outputs."""
        distances = (after - before).norm(dim=1)
        self.squares += float(distances.square().sum())
        self.largest = max(self.largest, *distances.tolist(), 0.0)
        old, new, y = _decided(before), _decided(after), labels.to(before.device)
        if before.shape[1] == 1:
            y = 2 * y - 1
        self.moved += int((old != new).sum())
        self.wrong_before += int((old != y).sum())
        self.wrong_after += int((new != y).sum())
        self._add_spread(before)

    def change(self, *, classifies: bool) -> MeasuredChange:
        """Return what was found."""
        rms = math.sqrt(self.squares / self.count)
        scale = math.sqrt(self.spread / self.count)
        decided = self.count if classifies else math.nan
        return MeasuredChange(
            count=self.count,
            rms=rms,
            relative=rms / scale if scale else _unvarying(),
            largest=self.largest,
            decisions=self.moved / decided,
            error_before=self.wrong_before / decided,
            error_after=self.wrong_after / decided,
        )

    def _add_spread(self, outputs: Tensor) -> None:
        if not len(outputs):
            return
        mean = outputs.mean(0)
        self.spread += float((outputs - mean).square().sum())
        shift, total = mean - self.mean, self.count + len(outputs)
        apart = float(shift.square().sum())
        self.spread += apart * self.count * len(outputs) / total
        self.mean = self.mean + shift * (len(outputs) / total)
        self.count = total


def _decided(outputs: Tensor) -> Tensor:
    """Return the classes decided for; of a single logit the sign, and zero is neither."""
    if outputs.shape[1] == 1:
        return outputs[:, 0].sign().long()
    return outputs.argmax(1)


def _unvarying() -> float:
    return undefined(
        "The relative change of an output that does not vary is undefined (NaN)."
    )
