from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._tolerances import GAP_TIE
from layerpeel.geometry import ClassGroups, split_classes


@pytest.mark.parametrize(
    ("counts", "majority", "minority"),
    [
        ([130, 4, 128, 5], (0, 2), (1, 3)),
        ([10, 1], (0,), (1,)),
        ([1, 10], (1,), (0,)),
        # The widest *relative* gap: 9 to 1, not 100 to 60.
        ([100, 60, 30, 9, 1], (0, 1, 2, 3), (4,)),
        # A geometric tail is cut in its middle.
        ([1000, 100, 10, 1], (0, 1), (2, 3)),
        ([5000.0 * 0.7**k for k in range(10)], tuple(range(5)), tuple(range(5, 10))),
        # Classes without samples are in neither group.
        ([50, 0, 5, 50, 0], (0, 3), (2,)),
        ([1.5, 1.0], (0,), (1,)),
    ],
    ids=str,
)
def test_splits_at_the_widest_relative_gap(counts, majority, minority):
    groups = split_classes(counts)
    assert groups == ClassGroups(majority, minority)
    assert not groups.balanced


@pytest.mark.parametrize(
    ("counts", "majority"),
    [
        ([7, 7, 7], (0, 1, 2)),
        ([130, 128, 131], (0, 1, 2)),
        ([1.49, 1.0], (0, 1)),
        ([5, 0, 6], (0, 2)),
        ([0, 4], (1,)),
        ([0, 0], ()),
        ([], ()),
    ],
    ids=str,
)
def test_balanced_counts_have_no_minority(counts, majority):
    groups = split_classes(counts)
    assert groups == ClassGroups(majority, ())
    assert groups.balanced


counts_lists = st.lists(st.integers(0, 10_000), min_size=1, max_size=12)
properties = settings(max_examples=60, deadline=None, derandomize=True)


@properties
@given(counts_lists)
def test_groups_partition_the_seen_classes_in_order(counts):
    groups = split_classes(counts)
    seen = [k for k, count in enumerate(counts) if count > 0]
    assert sorted(groups.majority + groups.minority) == seen
    assert list(groups.majority) == sorted(groups.majority)
    assert list(groups.minority) == sorted(groups.minority)
    if groups.minority:
        least = min(counts[k] for k in groups.majority)
        most = max(counts[k] for k in groups.minority)
        assert least > most
        # Of the gaps that are about as wide as the widest, the chosen one is the most
        # central, and the widest of two that are equally so.
        present = sorted((counts[k] for k in seen), reverse=True)
        gaps = [a / b for a, b in pairwise(present)]
        ranked = sorted(
            (abs(cut - len(present) / 2), -gap)
            for cut, gap in enumerate(gaps, start=1)
            if gap >= GAP_TIE * max(gaps)
        )
        chosen = (abs(len(groups.majority) - len(present) / 2), -least / most)
        assert chosen == pytest.approx(ranked[0], rel=1e-12)


@properties
@given(counts_lists, st.integers(1, 1000))
def test_only_proportions_matter(counts, factor):
    assert split_classes(counts) == split_classes([factor * c for c in counts])


@pytest.mark.parametrize("ratio", [10, 50, 100])
def test_whole_numbers_of_an_exponential_tail_split_near_the_middle(ratio):
    counts = [int(5000 * ratio ** (-k / 9)) for k in range(10)]
    assert 4 <= len(split_classes(counts).minority) <= 6
