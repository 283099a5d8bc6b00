import numpy as np
import pytest
import torch

from layerpeel.geometry import ClassGroups, split_classes
from layerpeel.program import two_group_counts
from layerpeel.program.counts import (
    checked_counts,
    count_groups,
    one_or_two_groups,
)


def test_groups_equal_counts_most_frequent_first():
    groups = count_groups([5, 50, 5, 50, 1])
    assert [(g.count, g.classes) for g in groups] == [
        (50.0, (1, 3)),
        (5.0, (0, 2)),
        (1.0, (4,)),
    ]


def test_counts_that_differ_by_rounding_are_equal():
    third = [0.1 + 0.2, 0.3, 0.3 * (1 + 4e-16)]
    assert len(count_groups(third)) == 1
    assert len(count_groups([1.0, 1.0 + 1e-11])) == 2


@pytest.mark.parametrize(
    "counts", [[3, 4], (3.0, 4.0), np.array([3, 4]), torch.tensor([3, 4])], ids=type
)
def test_checked_counts_takes_any_iterable_of_numbers(counts):
    assert checked_counts(counts) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "at least 2 classes; got 0"),
        ([5], "at least 2 classes; got 1"),
        ([5, 0], r"above 0; got class 1: 0\.0.*Leave out"),
        ([5, -2.0], "class 1: -2"),
        ([float("nan"), 5], "class 0: nan"),
        ([float("inf"), 5], "class 0: inf"),
        ([0] * 20, r"class 7: 0\.0, \.\.\. \(12 more\)"),
    ],
)
def test_rejects_bad_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        checked_counts(counts)


def test_more_than_two_distinct_counts_are_refused_with_a_way_out():
    with pytest.raises(
        ValueError, match=r"balanced or have two.*got 3 distinct.*7, 6, 5.*lp\.diagnose"
    ):
        one_or_two_groups([5.0, 6.0, 7.0])


def test_two_group_counts_are_the_group_means():
    counts = [100, 9, 110, 11, 120, 10]
    merged = two_group_counts(counts, split_classes(counts))
    assert merged == (110.0, 10.0, 110.0, 10.0, 110.0, 10.0)


def test_two_group_counts_of_balanced_groups_are_one_mean():
    counts = [100, 110, 120]
    assert two_group_counts(counts, split_classes(counts)) == (110.0,) * 3


def test_two_group_counts_keep_equal_counts_to_the_last_bit():
    counts = [0.1] * 3 + [0.01] * 3
    assert two_group_counts(counts, split_classes(counts)) == tuple(counts)


def test_two_group_counts_refuse_a_spread_group():
    # 10 is a factor of 3.55 below the mean 35.5 of its group.
    groups = ClassGroups((0, 1), (2, 3))
    with pytest.raises(ValueError, match=r"factor of 1\.5 of.*35\.5.*class 1: 10"):
        two_group_counts([61, 10, 1, 1], groups)


@pytest.mark.parametrize(
    "groups", [ClassGroups((0, 1), ()), ClassGroups((0, 1, 2), (2,))], ids=str
)
def test_two_group_counts_refuse_groups_of_other_classes(groups):
    with pytest.raises(ValueError, match="each of the 3 classes once"):
        two_group_counts([5, 5, 5], groups)
