import hypothesis.strategies as st
import torch
from hypothesis import given

from layerpeel.edits.width.splits import Split, Splits


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(-1, 4), st.floats(-2, 2)), max_size=8),
)
def test_shares_of_the_copies_of_a_neuron_add_up_to_one(width, drawn):
    made = tuple(Split(min(p, width - 1), a) for p, a in drawn)
    splits = Splits(width, made)
    for neuron in range(width):
        own = splits.sources == neuron
        assert abs(float(splits.shares[own].sum()) - 1) < 1e-9 * 3 ** len(made)
    assert (splits.shares[splits.sources < 0] == 0).all()
    assert torch.equal(splits.mixing.sum(0), splits.shares)
    assert (splits.mixing[:, splits.sources < 0] == 0).all()


def test_a_copy_may_be_split_again():
    splits = Splits(2, (Split(0, 0.25), Split(2, 0.5), Split(0, 2.0), Split(-1, 0.0)))
    assert splits.sources.tolist() == [0, 1, 0, 0, 0, -1]
    assert splits.shares.tolist() == [-0.75, 1, 0.125, 0.125, 1.5, 0]


def test_the_largest_share_is_split_by_then():
    splits = Splits.largest(torch.tensor([3.0, 8.0, 1.0]).double(), 4, 0.5)
    # 8 -> 4, 4 -> (2, 2), 4 -> 2, 2 -> 3 -> 1.5
    assert splits.sources[3:].tolist() == [1, 1, 1, 0]
    assert splits.shares[splits.sources == 1].tolist() == [0.25] * 4
    assert Splits.largest(torch.ones(2).double(), 9, 0.5).shares.max() == 0.25
