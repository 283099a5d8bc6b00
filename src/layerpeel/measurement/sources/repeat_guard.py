r"""Data that are read twice: whether the second pass brings the features of the first.

The order may differ, so that what is compared are sums over classes. Features that are
drawn anew, as by a loader that augments, change the sum of :math:`n` of them by about
:math:`\sqrt n` times what they change themselves; rounding in another order does, too,
and is what the tolerances leave room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import BatchError
from layerpeel._tolerances import REPEATED_BIAS, REPEATED_NOISE
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import Decisions


class RepeatGuard:
    """Adds up the features of a second pass, and refuses others than in the first.

    Args:
        expected: Moments of the first pass, of the samples of this process.

    Example:
        >>> h, y = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])
        >>> guard = RepeatGuard(ClassMoments.of(h, y, num_classes=1))
        >>> _ = list(guard.watched([Decisions(h.flip(0), y, y)]))
        >>> guard.check()
    """

    def __init__(self, expected: ClassMoments) -> None:
        self._expected = expected
        self._sums = torch.zeros_like(expected.mean)

    def watched(self, decisions: Iterable[Decisions]) -> Iterator[Decisions]:
        """Yield what is given, and add up its features."""
        for rows in decisions:
            self._sums = self._sums.to(rows.features.device)
            self._sums.index_add_(
                0, rows.labels, rows.features.detach().to(torch.float64)
            )
            yield rows

    def check(self) -> None:
        """Raise if the features were others, given as many samples of each class.

        Raises:
            BatchError: If their sums differ by more than rounding.
        """
        first = self._expected
        expected = (first.count[:, None] * first.mean).to(self._sums.device)
        gap = torch.linalg.vector_norm(self._sums - expected)
        room = REPEATED_NOISE * first.count.sqrt() + REPEATED_BIAS * first.count
        allowed = _length(first) * torch.linalg.vector_norm(room)
        # Overflow and NaN say nothing about the data.
        if not bool(gap.to(allowed.device) > allowed):
            return
        raise BatchError(
            "A second pass over the data must bring the same features as the first; the "
            "classes have as many samples as before, but the sums of their features "
            f"differ by {float(gap):.2g}, where rounding explains {float(allowed):.2g}. "
            "Pass a loader that does not draw anew, such as one without random "
            "augmentation, a `cache_bytes` that holds all features, or `nc4='one_pass'`."
        )


def _length(moments: ClassMoments) -> Float64[Tensor, ""]:
    """Return the root mean square length of all features."""
    count = moments.count.clamp(min=1)
    own = torch.hypot(
        torch.linalg.vector_norm(moments.mean, dim=1), (moments.trace / count).sqrt()
    )
    shares = moments.count / moments.count.sum().clamp(min=1)
    length: Tensor = torch.linalg.vector_norm(own * shares.sqrt())
    return length
