import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from layerpeel._checks import BatchError
from layerpeel.measurement.tracking.subset import FixedData, drawn, known_labels

X, Y = torch.arange(40.0)[:, None], torch.arange(40) % 4


def read(data):
    return torch.cat([x for x, _ in data.batches]).flatten().long().tolist()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(sum),
    size=st.integers(6, 60),
    seed=st.integers(0, 5),
)
def test_shares_follow_the_counts(counts, size, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    chosen = drawn(len(labels), size, seed, labels)
    assert len(chosen) == min(size, len(labels))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, drawn(len(labels), size, seed, labels))
    got = labels[chosen].bincount(minlength=len(counts)).tolist()
    least = 2 if size >= 2 * sum(n > 0 for n in counts) else 1
    for share, count in zip(got, counts, strict=True):
        assert min(least, count) <= share <= count
        assert abs(share - len(chosen) * count / len(labels)) <= 2 * len(counts) + 1


def test_seeds_differ_and_the_global_generator_does_not():
    before = torch.get_rng_state()
    a, b = drawn(1000, 50, 0), drawn(1000, 50, 1)
    assert not torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


def test_fewer_places_than_classes():
    with pytest.raises(ValueError, match="at least the number of classes, 4; got 3"):
        drawn(40, 3, 0, Y)
    with pytest.raises(ValueError, match="subset"):
        drawn(40, 0, 0)


def test_a_shuffled_loader_is_read_in_order_without_its_generator():
    g = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(X, Y), 7, shuffle=True, generator=g)
    before, state = torch.get_rng_state(), g.get_state()
    data = FixedData(loader, None, 0)
    assert read(data) == list(range(40)) == read(data)
    assert [len(y) for _, y in data.batches] == [7] * 5 + [5]
    assert torch.equal(g.get_state(), state)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subset_of_a_data_set_is_stratified_and_stays():
    data = FixedData(DataLoader(TensorDataset(X, Y), 3, shuffle=True), 12, 0)
    assert read(data) == read(data) == data.indices.tolist()
    assert Y[data.indices].bincount().tolist() == [3] * 4


def test_a_sampler_of_ones_own_decides():
    g = torch.Generator().manual_seed(0)
    sampler = WeightedRandomSampler([1.0] * 20 + [0.0] * 20, 15, generator=g)
    loader = DataLoader(TensorDataset(X, Y), 5, sampler=sampler)
    assert FixedData(loader, None, 0).batches is loader


@pytest.mark.parametrize("form", ["pairs", "mappings"])
def test_a_subset_of_batches_is_kept(form):
    batches = [
        (x, y)
        if form == "pairs"
        else {"x": x, "labels": y, "name": [str(k) for k in y.tolist()]}
        for x, y in zip(X.split(9), Y.split(9), strict=True)
    ]
    data = FixedData(batches, 8, 0)
    kept = list(data.batches)
    values = [b[0] if form == "pairs" else b["x"] for b in kept]
    assert torch.cat(values).flatten().long().tolist() == data.indices.tolist()
    if form == "mappings":
        for batch in kept:
            assert batch["name"] == [str(k) for k in batch["labels"].tolist()]
    assert Y[data.indices].bincount().tolist() == [2] * 4


class Shuffling:
    def __iter__(self):
        order = torch.randperm(40)
        return iter([(X[order], Y[order])])


def test_a_subset_needs_a_fixed_order():
    torch.manual_seed(0)
    with pytest.raises(BatchError, match="same order"):
        FixedData(Shuffling(), 8, 0)


def test_an_iterator_cannot_be_read_again():
    with pytest.raises(BatchError, match="iterable again"):
        FixedData(iter([(X, Y)]), None, 0)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y.tolist(), strict=True))


def test_streams_are_read_as_they_are():
    loader = DataLoader(Stream(), batch_size=8)
    assert FixedData(loader, None, 0).batches is loader
    data = FixedData(loader, 8, 0)
    assert read(data) == data.indices.tolist()


class Targets(Dataset):
    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return 40

    def __getitem__(self, index):
        raise AssertionError("no sample may be loaded")


def test_labels_that_are_known_without_loading():
    assert torch.equal(known_labels(Targets(Y.tolist())), Y)
    assert torch.equal(known_labels(Targets(Y.numpy())), Y)
    assert torch.equal(known_labels(Subset(TensorDataset(X, Y), [5, 2])), Y[[5, 2]])
    for unknown in (["a"] * 40, Y[:3], Y.float(), Y - 1, None, Y > 1):
        assert known_labels(Targets(unknown)) is None
    assert FixedData(DataLoader(Targets(None), 4), 8, 0).indices.shape == (8,)


def test_data_sets_without_known_labels_are_drawn_from_evenly():
    chosen = FixedData(DataLoader(Targets(None), 4), 10, 2).indices
    assert torch.equal(chosen, drawn(40, 10, 2))
