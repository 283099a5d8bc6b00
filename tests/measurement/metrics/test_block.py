import warnings

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import ClassGroups, Geometry, simplex_etf
from layerpeel.measurement.metrics.block import (
    classifier_block,
    feature_block,
    vector_block,
)
from tests.measurement.metrics.vectors import random_rows, with_gaps

GROUPS = ClassGroups(majority=(0, 1), minority=(2, 3, 4))
# Majority of length 2 at a right angle; minority of lengths 1, 2 and 3, two of them
# parallel and one at a right angle to both.
ROWS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [1, 0, 0], [0, 0, 2], [3, 0, 0]]).double()


def test_statistics_by_hand():
    block = classifier_block(Geometry.of(ROWS, torch.flip(ROWS, (0,))), GROUPS)
    assert block.cosine == pytest.approx(1 / 3)
    assert block.cosine_std == pytest.approx(np.std([1, 0, 0]))
    assert block.majority_cosine == 0
    assert block.norm_ratio == 1.0
    features = feature_block(Geometry.of(torch.flip(ROWS, (0,)), ROWS), GROUPS)
    assert features == block


def test_minority_collapse_has_cosine_one():
    rows = torch.cat([simplex_etf(3), simplex_etf(3)[:1] / 4, simplex_etf(3)[:1] / 4])
    block = classifier_block(Geometry.of(rows, rows), ClassGroups((0, 1, 2), (3, 4)))
    assert block.cosine == pytest.approx(1)
    assert block.cosine_std == pytest.approx(0, abs=1e-12)
    assert block.majority_cosine == pytest.approx(-0.5)
    assert block.norm_ratio == pytest.approx(4)


def test_vanished_and_unseen_classes_are_nan():
    rows = ROWS.clone()
    rows[2:] = 0
    with pytest.warns(UndefinedWarning, match="has vanished"):
        block = classifier_block(Geometry.of(rows, rows), GROUPS)
    assert np.isnan([block.cosine, block.cosine_std, block.norm_ratio]).all()
    means = ROWS.clone()
    means[4] = torch.nan
    with pytest.warns(UndefinedWarning, match="has no samples"):
        assert np.isnan(feature_block(Geometry.of(ROWS, means), GROUPS).cosine)
    with pytest.warns(UndefinedWarning, match="has no samples"):
        assert np.isnan(vector_block(means, GROUPS).cosine)


@pytest.mark.parametrize("minority", [(), (4,)])
def test_groups_without_pairs_are_nan(minority):
    block = classifier_block(Geometry.of(ROWS, ROWS), ClassGroups((0,), minority))
    assert np.isnan([block.cosine, block.cosine_std, block.majority_cosine]).all()
    assert np.isnan(block.norm_ratio) == (not minority)


BLOCKS = {
    "random": (random_rows(5, 3), GROUPS),
    "many": (
        random_rows(700, 3),
        ClassGroups(tuple(range(300)), tuple(range(300, 700))),
    ),
    "vanished": (torch.cat([ROWS[:4], 0 * ROWS[:1]]), GROUPS),
    "absent": (with_gaps(ROWS[:4], 4), GROUPS),
    "no pair": (ROWS, ClassGroups((0, 1, 2, 3), (4,))),
    "no minority": (ROWS, ClassGroups((0, 1, 2, 3, 4), ())),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_vectors_give_the_statistics_of_their_geometry(name):
    rows, groups = BLOCKS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = classifier_block(Geometry.of(rows, rows), groups)
        actual = vector_block(rows, groups)
    assert len(caught) == 2 * (name in ("vanished", "absent"))
    np.testing.assert_allclose(
        list(vars(actual).values()),
        list(vars(expected).values()),
        rtol=1e-11,
        atol=1e-15,
    )
