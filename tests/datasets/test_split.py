import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import LabelError
from layerpeel.datasets import stratified_split


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_parts_are_disjoint_complete_and_stratified(sizes, share, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator(seed))]
    train, test = stratified_split(labels, share, generator(seed))
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    assert train.tolist() == sorted(train.tolist())
    assert test.tolist() == sorted(test.tolist())
    for label, size in enumerate(sizes):
        count = sum(labels[i].item() == label for i in test)
        assert 1 <= count <= size - 1
        assert abs(count - share * size) <= 0.5 + 1e-9 or count in (1, size - 1)


def test_the_samples_of_a_class_are_drawn_evenly():
    labels = torch.zeros(10, dtype=torch.int64)
    source, drawn = generator(1), torch.zeros(10)
    for _ in range(4000):
        drawn[stratified_split(labels, 0.3, source)[1]] += 1
    # Each is drawn with probability 0.3: 1200 times, standard deviation 29.
    assert bool(((drawn - 1200).abs() < 5 * 29).all())


def test_split_follows_the_generator_alone():
    labels = torch.arange(4).repeat(20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = stratified_split(labels, 0.25, generator(3))
    assert torch.get_rng_state().equal(before)
    again, other = (stratified_split(labels, 0.25, generator(s)) for s in (3, 4))
    assert again[1].equal(first[1])
    assert not other[1].equal(first[1])


def test_classes_that_do_not_occur_are_no_obstacle():
    train, test = stratified_split(torch.tensor([0, 5, 0, 5]), 0.5, generator())
    assert (len(train), len(test)) == (2, 2)


REFUSED = [
    ([0, 0, 1], 0.5, LabelError, "at least two samples.*class 1 has one"),
    ([], 0.5, LabelError, "empty"),
    ([0, -1], 0.5, LabelError, "from -1"),
    ([0, 0], 0.0, ValueError, "between 0 and 1"),
    ([0, 0], 1.0, ValueError, "between 0 and 1"),
    ([0, 0], float("nan"), ValueError, "between 0 and 1"),
]


@pytest.mark.parametrize(("labels", "share", "error", "message"), REFUSED)
def test_impossible_splits_are_refused(labels, share, error, message):
    with pytest.raises(error, match=message):
        stratified_split(torch.tensor(labels, dtype=torch.int64), share, generator())
