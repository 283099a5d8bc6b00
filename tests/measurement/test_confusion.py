import math

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
