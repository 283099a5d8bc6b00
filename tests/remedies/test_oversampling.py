from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import LabelError, ShapeError
from layerpeel.remedies import oversampled_indices


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.integers(1, 7), min_size=4, max_size=4),
)
def test_integer_rates_repeat_each_sample_exactly(labels, rates):
    indices = oversampled_indices(torch.tensor(labels, dtype=torch.int64), rates)
    assert indices.dtype == torch.int64
    # Each minority sample is there once, and rate - 1 times more.
    expected = [i for i, label in enumerate(labels) for _ in range(rates[label])]
    assert indices.tolist() == expected


def test_rates_may_be_a_tensor_and_whole_floats_need_no_generator():
    labels = torch.tensor([1, 0])
    for rates in [torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), (1.0, 2.0)]:
        assert oversampled_indices(labels, rates).tolist() == [0, 0, 1]


@pytest.mark.parametrize("rate", [1.25, 2.5, 9.9])
def test_fractional_rates_are_exact_on_average(rate):
    n, rounds, source = 200, 300, generator(1)
    labels = torch.tensor([0] * 5 + [1] * n)
    total = Counter()
    for _ in range(rounds):
        counts = Counter(oversampled_indices(labels, [1, rate], source).tolist())
        assert all(counts[i] == 1 for i in range(5))
        assert all(counts[i] in (int(rate), int(rate) + 1) for i in range(5, 5 + n))
        total += counts
    part = rate - int(rate)
    deviation = (part * (1 - part) / (n * rounds)) ** 0.5
    mean = sum(total[i] for i in range(5, 5 + n)) / (n * rounds)
    assert abs(mean - rate) < 5 * deviation
    # And for every sample by itself, not only for the class.
    each = (part * (1 - part) / rounds) ** 0.5
    assert all(abs(total[i] / rounds - rate) < 5 * each for i in range(5, 5 + n))


def test_draws_follow_the_generator_alone():
    labels, rates = torch.arange(2).repeat(50), [1.5, 3.25]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = oversampled_indices(labels, rates, generator(3))
    assert torch.get_rng_state().equal(before)
    assert oversampled_indices(labels, rates, generator(3)).equal(first)
    assert not oversampled_indices(labels, rates, generator(4)).equal(first)


def test_the_imbalance_ratio_as_rate_balances_the_classes():
    labels = torch.arange(2).repeat_interleave(torch.tensor([60, 12]))
    assert labels[oversampled_indices(labels, [1, 5])].bincount().tolist() == [60, 60]


REFUSED = [
    ([0, 1], [1, 1.5], ValueError, r"\[1\.0, 1\.5\].*generator="),
    ([0, 1], [1, 0.5], ValueError, ">= 1"),
    ([0, 1], [1, 0], ValueError, ">= 1"),
    ([0, 1], [1, float("inf")], ValueError, "finite"),
    ([0, 1], [1, float("nan")], ValueError, "finite"),
    ([0, 2], [1, 2], LabelError, r"\[0, 2\)"),
    ([-1, 0], [1, 2], LabelError, r"\[0, 2\)"),
    ([0, 1], [], ShapeError, "one number per class"),
    ([0, 1], torch.ones(2, 1), ShapeError, r"\(2, 1\)"),
    ([[0], [1]], [1, 2], ShapeError, r"\(n,\)"),
    ([0.0, 1.0], [1, 2], LabelError, "integers"),
]


@pytest.mark.parametrize(("labels", "rates", "error", "message"), REFUSED)
def test_wrong_rates_and_labels_are_refused(labels, rates, error, message):
    with pytest.raises(error, match=message):
        oversampled_indices(torch.tensor(labels), rates)
