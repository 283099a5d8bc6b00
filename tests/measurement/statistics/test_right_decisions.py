import pytest
import torch

from layerpeel.measurement import Confusion, RightDecisions


def data(n=50, K=5):
    g = torch.Generator().manual_seed(0)
    y, p = torch.randint(0, K - 1, (2, n), generator=g)  # the last has no samples
    return y, p


def test_accuracies_are_those_of_the_confusion():
    few, all_pairs = (kind.of(*data(), 5) for kind in (RightDecisions, Confusion))
    assert few.accuracy == all_pairs.accuracy
    torch.testing.assert_close(
        few.class_accuracy, all_pairs.class_accuracy, rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(few.class_counts, all_pairs.class_counts)
    for classes in ([0, 2], [4, 1]):
        assert few.group_recall(classes) == all_pairs.group_recall(classes)
        assert few.group_accuracy(classes) == all_pairs.group_accuracy(classes)
    assert few.group_recall([4]) != few.group_recall([4])  # NaN


@pytest.mark.parametrize("size", [0, 1, 20])
def test_counting_in_place_is_counting(size):
    y, p = data()
    counted = RightDecisions.of(y[size:], p[size:], 5)
    counted.add_(y[:size], p[:size])
    whole = RightDecisions.of(y, p, 5)
    assert torch.equal(counted.right, whole.right)
    assert torch.equal(counted.count, whole.count)
