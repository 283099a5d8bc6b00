"""The class counts that are solved: as they are, or as near to them as pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from layerpeel.geometry import ClassGroups, Geometry
from layerpeel.program import two_group_counts
from layerpeel.program.counts import count_groups

# Above this many distinct counts a solve takes seconds, and counts are binned.
MOST_DISTINCT = 200

# Into how many bins: neighbouring counts of a bin differ by less than predicted norms
# are known from measured energies.
BINS = 30

AT_THE_MEAN = "Each group is solved at its mean count."
AS_THEY_ARE = "Every class is solved at its own count."


@dataclass(frozen=True)
class SolvedCounts:
    """Class counts, and what was done to them.

    Attributes:
        counts: The counts to solve, with length :math:`K`.
        tail: Whether they are more than two groups.
        note: How they come from the measured counts, as a sentence.
    """

    counts: tuple[float, ...]
    tail: bool
    note: str

    @classmethod
    def of(cls, class_counts: Sequence[int], groups: ClassGroups) -> SolvedCounts:
        """Return balanced counts and two groups at their means, others as they are.

        Args:
            class_counts: The number of samples of each class.
            groups: Which classes are frequent and which are rare.

        Raises:
            ValueError: If a class has no samples.
        """
        absent = sum(count == 0 for count in class_counts)
        if absent:
            raise ValueError(
                f"{absent} of {len(class_counts)} classes have no samples, and the "
                "peeled program needs a positive count for each."
            )
        try:
            return cls(two_group_counts(class_counts, groups), False, AT_THE_MEAN)
        except ValueError:  # a group is spread too widely
            return cls(tuple(map(float, class_counts)), True, AS_THEY_ARE).with_at_most(
                MOST_DISTINCT
            )

    def with_at_most(self, distinct: int) -> SolvedCounts:
        """Return the counts binned, if more of them are distinct.

        Args:
            distinct: How many may be.
        """
        found = len(count_groups(self.counts))
        if found <= distinct:
            return self
        binned = binned_counts(self.counts, BINS)
        left = len(count_groups(binned))
        note = (
            f"The {found} distinct counts are solved in {left} groups of neighbouring "
            "counts, each at its mean."
        )
        return SolvedCounts(binned, self.tail, note)

    def centre(self, geometry: Geometry, centring: str) -> Geometry:
        """Centre predicted class means as measured ones are.

        Args:
            geometry: The geometry of a solution for these counts.
            centring: A key of ``CENTRINGS``.
        """
        if centring == "none":
            return geometry
        weights = torch.tensor(self.counts, dtype=torch.float64)
        even = torch.ones_like(weights)
        return geometry.about(weights if centring == "sample" else even)


def binned_counts(class_counts: Sequence[float], bins: int) -> tuple[float, ...]:
    """Replace counts by the mean of those in the same of some geometric bins.

    Args:
        class_counts: Positive counts, with length :math:`K`.
        bins: The number of bins, equally wide in the logarithm.

    Example:
        >>> binned_counts([1, 2, 50, 60, 1000], bins=3)
        (1.5, 1.5, 55.0, 55.0, 1000.0)
    """
    logs = [math.log(count) for count in class_counts]
    low, width = min(logs), (max(logs) - min(logs)) / bins
    members: dict[int, list[int]] = {}
    for k, log in enumerate(logs):
        place = min(int((log - low) / width), bins - 1) if width > 0 else 0
        members.setdefault(place, []).append(k)
    binned = [0.0] * len(logs)
    for classes in members.values():
        mean = math.fsum(class_counts[k] for k in classes) / len(classes)
        for k in classes:
            binned[k] = mean
    return tuple(binned)
