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
        # Rounding may have made both gaps: the one that looks wider is taken.
        ([1, 2, 3], (1, 2), (0,)),
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
        gaps = [(2 * a - 1) / (2 * b + 1) for a, b in pairwise(present)]
        ranked = sorted(
            (abs(cut - len(present) / 2), -gap)
            for cut, gap in enumerate(gaps, start=1)
            if gap >= GAP_TIE * max(gaps) and present[cut - 1] > present[cut]
        )
        gap = (2 * least - 1) / (2 * most + 1)
        chosen = (abs(len(groups.majority) - len(present) / 2), -gap)
        assert chosen == pytest.approx(ranked[0], rel=1e-12)


@properties
@given(counts_lists, st.integers(0, 10))
def test_only_proportions_matter_where_counts_are_not_rounded(counts, power):
    broken = [c + 0.3 for c in counts]
    assert split_classes(broken) == split_classes([2.0**-power * c for c in broken])


@pytest.mark.parametrize("num_classes", [4, 10, 20, 50, 100])
@pytest.mark.parametrize("ratio", [5, 20, 100, 500])
@pytest.mark.parametrize("most", [500, 1280, 5000])
@pytest.mark.parametrize("whole", [int, round])
def test_rounded_exponential_tails_split_near_the_middle(
    num_classes, ratio, most, whole
):
    exact = [most * ratio ** (-k / (num_classes - 1)) for k in range(num_classes)]
    counts = [whole(count) for count in exact]
    off_centre = len(split_classes(counts).minority) - num_classes / 2
    # Beyond the middle, equal whole numbers leave few places for a cut.
    assert abs(off_centre) <= 1 + 0.02 * num_classes


@pytest.mark.parametrize(
    ("counts", "minority"),
    [
        # Ten samples against two are a gap, two against one may be none.
        ([10] * 2 + [2] * 3 + [1] * 3, 6),
        ([9] * 4 + [2, 1], 2),
        ([20] * 5 + [1], 1),
    ],
    ids=str,
)
def test_a_gap_that_rounding_cannot_make_beats_one_that_it_can(counts, minority):
    assert len(split_classes(counts).minority) == minority
