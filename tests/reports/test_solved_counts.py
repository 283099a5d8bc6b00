import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel.geometry import Geometry, simplex_etf, split_classes
from layerpeel.program import PeeledProblem
from layerpeel.program.counts import count_groups
from layerpeel.reports.solved_counts import BINS, SolvedCounts, binned_counts


def solved(counts):
    return SolvedCounts.of(counts, split_classes(counts))


@pytest.mark.parametrize(
    ("counts", "expected", "tail"),
    [
        ([20, 21, 22], (21.0,) * 3, False),
        ([60, 64, 56, 12, 10, 14], (60.0,) * 3 + (12.0,) * 3, False),
        ([100, 31, 10, 3], (100.0, 31.0, 10.0, 3.0), True),
        ([9, 9, 3, 3, 1, 1], (9.0, 9.0, 3.0, 3.0, 1.0, 1.0), True),
    ],
    ids=["balanced", "two groups", "long tail", "three groups"],
)
def test_what_is_solved_for(counts, expected, tail):
    found = solved(counts)
    assert (found.counts, found.tail) == (expected, tail)
    assert ("mean" in found.note) is not tail


def test_classes_without_samples_cannot_be_solved():
    with pytest.raises(ValueError, match="1 of 3 classes have no samples"):
        solved([5, 0, 5])


def test_very_many_distinct_counts_are_binned_and_said_to_be():
    counts = list(range(5, 506, 2))
    found = solved(counts)
    groups = len(count_groups(found.counts))
    assert groups <= BINS
    assert f"{len(counts)} distinct counts are solved in {groups} groups" in found.note
    assert sum(found.counts) == pytest.approx(sum(counts))
    few = solved(counts[::2])
    assert len(count_groups(few.counts)) == len(counts[::2])
    assert few.with_at_most(400) is few


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=40), st.integers(1, 9))
def test_a_bin_is_narrow_and_keeps_its_total(counts, bins):
    binned = binned_counts(counts, bins)
    assert math.fsum(binned) == pytest.approx(sum(counts))
    assert len({round(b, 9) for b in binned}) <= bins
    width = (max(counts) / min(counts)) ** (1 / bins)
    for count, mean in zip(counts, binned, strict=True):
        assert mean / width * (1 - 1e-9) <= count <= mean * width * (1 + 1e-9)


def test_binning_moves_predictions_little():
    counts = np.geomspace(800, 5, 60).round()
    tail = SolvedCounts.of([int(n) for n in counts], split_classes(list(counts)))
    block = split_classes(list(counts)).minority
    exact, binned = (
        PeeledProblem(c.counts, energy=(1.0, 8.0)).solve().geometry
        for c in (tail, tail.with_at_most(BINS))
    )
    assert len(count_groups(tail.counts)) > BINS
    assert binned.block_cosine(block) == pytest.approx(
        exact.block_cosine(block), abs=0.01
    )
    moved = (binned.classifier_norms - exact.classifier_norms).abs()
    share = moved / exact.classifier_norms.max()
    assert float(share.median()) < 0.005
    assert float(share.max()) < 0.1  # where a class passes the collapse threshold


@pytest.mark.parametrize("centring", ["sample", "class", "none"])
def test_class_means_are_centred_as_measured_ones_are(centring):
    rows, means = 2 * simplex_etf(3), simplex_etf(3) + torch.eye(3).double()
    weights = {"sample": [0.6, 0.3, 0.1], "class": [1 / 3] * 3, "none": [0.0] * 3}
    centre = torch.tensor(weights[centring], dtype=torch.float64) @ means
    expected = Geometry.of(rows, means - centre)
    tail = SolvedCounts((6.0, 3.0, 1.0), True, "")
    found = tail.centre(Geometry.of(rows, means), centring)
    assert found.feature_gram.numpy() == pytest.approx(expected.feature_gram.numpy())
    assert found.logits.numpy() == pytest.approx(expected.logits.numpy())
