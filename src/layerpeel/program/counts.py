"""Class counts: which classes are equally frequent, and how to make them so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from layerpeel._checks import listed
from layerpeel._tolerances import EQUAL_COUNTS, GROUP_SPREAD
from layerpeel.geometry import ClassGroups
from layerpeel.program._inputs import numbers


@dataclass(frozen=True)
class CountGroup:
    """Classes that are equally frequent.

    Attributes:
        count: Their number of samples, possibly fractional.
        classes: Their indices, in increasing order.
    """

    count: float
    classes: tuple[int, ...]


def checked_counts(class_counts: Iterable[SupportsFloat]) -> tuple[float, ...]:
    """Return class counts as floats.

    Raises:
        ValueError: If they are no sequence of numbers, there are fewer than two, or one
            is not finite and above zero.
    """
    counts = numbers("class_counts", class_counts, example="[500, 500, 10]")
    if len(counts) < 2:
        raise ValueError(
            f"`class_counts` must have at least 2 classes; got {len(counts)}."
        )
    bad = [
        f"class {k}: {count}"
        for k, count in enumerate(counts)
        if not (math.isfinite(count) and count > 0)
    ]
    if bad:
        raise ValueError(
            "`class_counts` must be finite numbers above 0; got "
            f"{listed(bad)}. Leave out classes without samples."
        )
    return counts


def count_groups(class_counts: Sequence[float]) -> tuple[CountGroup, ...]:
    """Group equally frequent classes, the most frequent first.

    Args:
        class_counts: Positive counts, with length :math:`K`. Counts that differ by
            rounding only (``EQUAL_COUNTS``, relative) are equal.

    Returns:
        The groups, by decreasing count.

    Example:
        >>> [(group.count, group.classes) for group in count_groups([5, 50, 5])]
        [(50.0, (1,)), (5.0, (0, 2))]
    """
    groups: list[list[int]] = []
    for k in sorted(range(len(class_counts)), key=lambda k: -class_counts[k]):
        first = class_counts[groups[-1][0]] if groups else math.inf
        if class_counts[k] >= first * (1 - EQUAL_COUNTS):
            groups[-1].append(k)
        else:
            groups.append([k])
    return tuple(
        CountGroup(_mean([class_counts[k] for k in group]), tuple(sorted(group)))
        for group in groups
    )


def one_or_two_groups(class_counts: Sequence[float]) -> tuple[CountGroup, ...]:
    """Return the groups of equally frequent classes if there are at most two.

    Raises:
        ValueError: If there are more than two distinct counts.
    """
    groups = count_groups(class_counts)
    if len(groups) > 2:
        raise ValueError(
            "`class_counts` must be balanced or have two distinct values; got "
            f"{len(groups)} distinct values "
            f"({listed([f'{group.count:g}' for group in groups])}). Replace the counts "
            "of each group by their mean, as `lp.diagnose` does: "
            "`two_group_counts(class_counts, split_classes(class_counts))`."
        )
    return groups


def two_group_counts(
    class_counts: Iterable[SupportsFloat], groups: ClassGroups
) -> tuple[float, ...]:
    """Replace the counts of each group of classes by their mean.

    A peeled program of the result is an approximation, which is why groups that are
    spread too widely are refused.

    Args:
        class_counts: Positive counts, with length :math:`K`.
        groups: A split of all :math:`K` classes, as by ``split_classes``.

    Returns:
        The counts, with length :math:`K`; two distinct values, or one if ``groups`` has
        no minority.

    Raises:
        ValueError: If a class is in neither group or in both, or a count is further
            than the factor ``GROUP_SPREAD`` from the mean of its group.

    Example:
        >>> from layerpeel.geometry import split_classes
        >>> counts = [130, 4, 128, 6]
        >>> two_group_counts(counts, split_classes(counts))
        (129.0, 5.0, 129.0, 5.0)
    """
    counts = checked_counts(class_counts)
    if sorted(groups.majority + groups.minority) != list(range(len(counts))):
        raise ValueError(
            f"`groups` must hold each of the {len(counts)} classes once; got "
            f"{groups}. Split the same counts with `split_classes(class_counts)`."
        )
    merged = list(counts)
    for classes in (groups.majority, groups.minority):
        for k, mean in _group_means(counts, classes).items():
            merged[k] = mean
    return tuple(merged)


def _group_means(counts: Sequence[float], classes: Sequence[int]) -> dict[int, float]:
    """Return the mean count for each class of a group that is not spread too widely."""
    if not classes:
        return {}
    mean = _mean([counts[k] for k in classes])
    far = [
        f"class {k}: {counts[k]:g}"
        for k in classes
        if not mean / GROUP_SPREAD <= counts[k] <= mean * GROUP_SPREAD
    ]
    if far:
        raise ValueError(
            f"The counts of a group must be within a factor of {GROUP_SPREAD:g} of "
            f"their mean, {mean:g}; got {listed(far)}. Two groups do not describe "
            "these counts: predict for a subset of the classes, or resample them."
        )
    return dict.fromkeys(classes, mean)


def _mean(counts: Sequence[float]) -> float:
    # Dividing first keeps the mean of equal counts from overflowing; equal counts
    # must come back as they are.
    if min(counts) == max(counts):
        return float(counts[0])
    return math.fsum(count / len(counts) for count in counts)
