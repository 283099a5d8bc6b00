import math

import pytest
import torch

from layerpeel.measurement import Confusion

LABELS = torch.tensor([0, 0, 0, 1, 1, 3])
PREDICTIONS = torch.tensor([0, 0, 1, 1, 3, 2])


def test_counts_have_true_classes_in_rows():
    confusion = Confusion.of(LABELS, PREDICTIONS, 4)
    assert confusion.counts.tolist() == [
        [2, 1, 0, 0],
        [0, 1, 0, 1],
        [0] * 4,
        [0, 0, 1, 0],
    ]


def test_accuracies_by_hand():
    confusion = Confusion.of(LABELS, PREDICTIONS, 4)
    assert confusion.accuracy == 3 / 6
    recall = confusion.class_accuracy.tolist()
    assert recall[:2] == [2 / 3, 1 / 2]
    assert math.isnan(recall[2])
    assert recall[3] == 0.0
    assert confusion.group_accuracy([0, 3]) == 2 / 4
    assert math.isnan(confusion.group_accuracy([2]))


def test_merge_adds():
    parts = Confusion.of(LABELS[:2], PREDICTIONS[:2], 4).merge(
        Confusion.of(LABELS[2:], PREDICTIONS[2:], 4)
    )
    assert torch.equal(parts.counts, Confusion.of(LABELS, PREDICTIONS, 4).counts)
    assert torch.equal(parts.merge(Confusion.empty(4)).counts, parts.counts)


def test_no_data_has_no_accuracy():
    assert math.isnan(Confusion.empty(3).accuracy)


def test_counting_in_place_is_merging():
    random = torch.Generator().manual_seed(0)
    merged, counted = Confusion.empty(5), Confusion.empty(5)
    for size in (7, 0, 1):
        labels, predictions = torch.randint(0, 5, (2, size), generator=random)
        merged = merged.merge(Confusion.of(labels, predictions, 5))
        counted.add_(labels, predictions)
    assert torch.equal(counted.counts, merged.counts)


def test_group_recall_weighs_classes_alike_and_leaves_out_those_without_samples():
    confusion = Confusion(torch.tensor([[9, 1, 0], [1, 1, 0], [0, 0, 0]]))
    assert confusion.group_recall([0, 1, 2]) == pytest.approx((0.9 + 0.5) / 2)
    assert math.isnan(confusion.group_recall([2]))
