from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import LabelError, ShapeError
from layerpeel.datasets import exponential_imbalance, step_imbalance


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shuffled(*sizes, seed=0):
    """Labels with given class sizes, in random order."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=generator(seed))]


def sizes(labels, kept):
    """Class sizes of a subset that names no sample twice, counted in Python."""
    chosen = kept.tolist()
    assert chosen == sorted(set(chosen))
    counts = Counter(labels[i].item() for i in chosen)
    return [counts[k] for k in range(int(labels.max()) + 1)]


@pytest.mark.parametrize(
    ("minority", "expected"),
    [([0], [4, 20, 9]), ([2, 0], [4, 20, 4]), ([0, 1, 2], [4, 4, 4])],
)
def test_step_keeps_few_of_the_minority_and_all_others(minority, expected):
    labels = shuffled(30, 20, 9)
    kept = step_imbalance(labels, minority, 4, generator())
    expected = [
        30 if k == 0 and 0 not in minority else e for k, e in enumerate(expected)
    ]
    assert sizes(labels, kept) == expected


def test_step_can_keep_every_sample():
    labels = shuffled(5, 3)
    assert step_imbalance(labels, [1], 3, generator()).tolist() == list(range(8))


def test_every_sample_of_the_minority_is_equally_likely():
    labels = shuffled(3, 10)
    drawn = Counter()
    source = generator(1)
    for _ in range(4000):
        kept = step_imbalance(labels, [1], 2, source)
        drawn.update(i for i in kept.tolist() if labels[i] == 1)
    # Each is kept with probability 1/5: 800 times, with a standard deviation of 25.
    assert len(drawn) == 10
    assert all(abs(count - 800) < 5 * 25.3 for count in drawn.values())


@pytest.mark.parametrize(
    "draw",
    [
        lambda labels, g: step_imbalance(labels, [1], 5, g),
        lambda labels, g: exponential_imbalance(labels, 10, g),
    ],
)
def test_draws_follow_the_generator_alone(draw):
    labels = shuffled(40, 40, 40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(labels, generator(3))
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert draw(labels, generator(3)).equal(first)
    assert not draw(labels, generator(4)).equal(first)


REFUSED_STEPS = [
    ([1], 4, LabelError, "Class 1 must have at least 4 samples.*it has 3"),
    ([5], 1, LabelError, "Class 5 must have at least 1.*it has 0"),
    ([1, 1], 2, LabelError, "each class once"),
    ([1], 0, ValueError, "`count`.*>= 1"),
    ([], 2, ValueError, "number of minority classes"),
]


@pytest.mark.parametrize(("minority", "count", "error", "message"), REFUSED_STEPS)
def test_impossible_steps_are_refused(minority, count, error, message):
    with pytest.raises(error, match=message):
        step_imbalance(shuffled(9, 3), minority, count, generator())


TAILS = [
    ([500] * 10, 100, [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]),
    ([100] * 3, 100, [100, 10, 1]),
    ([64] * 7, 64, [64, 32, 16, 8, 4, 2, 1]),
    ([50, 50], 1, [50, 50]),
    ([30, 20, 10], 3, [30, 17, 10]),
    # The head is cut so that the tail's own shortage does not bend the curve.
    ([100, 100, 5], 4, [20, 10, 5]),
    ([100, 10, 100], 4, [20, 10, 5]),
]


@pytest.mark.parametrize(("available", "ratio", "expected"), TAILS)
def test_long_tails_have_exponential_sizes(available, ratio, expected):
    labels = shuffled(*available)
    assert sizes(labels, exponential_imbalance(labels, ratio, generator())) == expected


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=8),
    st.floats(1, 50),
)
def test_long_tails_are_within_half_a_sample_of_the_curve(available, ratio):
    labels = shuffled(*available)
    steps = len(available) - 1
    curve = [ratio ** (-k / steps) for k in range(steps + 1)]
    head = min(n / c for n, c in zip(available, curve, strict=True))
    if head / ratio < 0.5:
        with pytest.raises(ValueError, match="`ratio` must leave the last class"):
            exponential_imbalance(labels, ratio, generator())
        return
    if head / ratio == 0.5:
        return
    kept = sizes(labels, exponential_imbalance(labels, ratio, generator()))
    for count, part, limit in zip(kept, curve, available, strict=True):
        assert abs(count - head * part) <= 0.5 + 1e-9
        assert count <= limit


REFUSED_TAILS = [
    (shuffled(10, 0, 10), 2, LabelError, "no sample has label 1"),
    (shuffled(10), 2, ValueError, "number of classes"),
    (shuffled(10, 10), 0.5, ValueError, "`ratio`.*>= 1"),
    (shuffled(10, 10), float("inf"), ValueError, "finite"),
    (shuffled(10, 10), float("nan"), ValueError, "finite"),
    (shuffled(10, 10), 100.0, ValueError, "at least one sample.*below 20"),
    (torch.tensor([0.0, 1.0]), 2, LabelError, "integers"),
    (torch.eye(2).long(), 2, ShapeError, r"\(n,\)"),
]


@pytest.mark.parametrize(("labels", "ratio", "error", "message"), REFUSED_TAILS)
def test_impossible_tails_are_refused(labels, ratio, error, message):
    with pytest.raises(error, match=message):
        exponential_imbalance(labels, ratio, generator())
