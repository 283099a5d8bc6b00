"""Which classes are the majority and which the minority.

The peeled program is exactly solvable for two groups of equally frequent classes, and
the statistics of *minority collapse* are statistics of a block of classes, so both the
prediction and the measurement need one rule for the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from layerpeel._tolerances import BALANCED_RATIO, GAP_TIE


@dataclass(frozen=True)
class ClassGroups:
    """A split of the classes into frequent and rare ones.

    Attributes:
        majority: Indices of the frequent classes, in increasing order.
        minority: Indices of the rare classes; empty when the counts are balanced.
    """

    majority: tuple[int, ...]
    minority: tuple[int, ...]

    @property
    def block(self) -> tuple[int, ...]:
        """The minority; all classes when there is none."""
        return self.minority or self.majority

    @property
    def balanced(self) -> bool:
        """Whether there is no minority."""
        return not self.minority


def split_classes(class_counts: Sequence[float]) -> ClassGroups:
    """Split classes at the widest relative gap between neighbouring counts.

    Classes without samples belong to neither group. Whole numbers may be rounded ones, and
    their gaps are as wide as they are at least before rounding: 2 samples against 1 may
    be no gap at all. Of gaps that are about equally wide (``GAP_TIE``), as in an
    exponential long tail, the most central one wins. Counts whose largest is below
    ``BALANCED_RATIO`` times the smallest are balanced and have no minority; beyond it the
    widest gap decides, however narrow, so name the minority when it is known.

    Args:
        class_counts: The number of samples of each class, with length :math:`K`.

    Returns:
        The two groups.

    Example:
        >>> split_classes([130, 4, 128, 5])
        ClassGroups(majority=(0, 2), minority=(1, 3))
        >>> split_classes([130, 128, 131]).balanced
        True
    """
    present = [k for k, count in enumerate(class_counts) if count > 0]
    order = sorted(present, key=lambda k: -class_counts[k])
    if not order or class_counts[order[0]] < BALANCED_RATIO * class_counts[order[-1]]:
        return ClassGroups(tuple(sorted(order)), ())
    counts = [class_counts[k] for k in order]
    gaps = _sure_gaps(counts)
    # Whole numbers of samples blur the equal gaps of an exponential tail.
    widest = [cut for cut, gap in gaps.items() if gap >= GAP_TIE * max(gaps.values())]
    cut = min(
        widest,
        key=lambda c: (abs(c - len(order) / 2), -gaps[c], -counts[c - 1] / counts[c]),
    )
    return ClassGroups(tuple(sorted(order[:cut])), tuple(sorted(order[cut:])))


def _sure_gaps(counts: Sequence[float]) -> dict[int, float]:
    """Return how wide the gap at each cut is at least, for decreasing counts."""
    whole = all(count == int(count) for count in counts)
    # Whole numbers are off by this from the numbers that were rounded to them.
    off = 0.5 if whole else 0.0
    return {
        cut: (more - off) / (less + off)
        for cut, (more, less) in enumerate(pairwise(counts), start=1)
        if more > less
    }
