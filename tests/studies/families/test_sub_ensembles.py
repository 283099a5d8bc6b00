import math

import pytest
import torch

from layerpeel._checks import LabelError, ShapeError
from layerpeel.studies.families.sub_ensembles import draw_subsets, ensemble_errors

X = torch.tensor([-2.0, -0.5, 0.5, 1.0, 2.0, 4.0])
LABELS = (X > 0).long()
# Three networks that say 1 where x is above -1, 0 and 3.
DIFFERENCES = torch.stack([X + 1, X, X - 3])
LOGITS = torch.stack([torch.zeros_like(DIFFERENCES), DIFFERENCES], dim=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ([0], 1), ([1], 0), ([2], 3),
        # Sums 2x + 1, 2x - 2 and 2x - 3: a tie is the first class.
        ([0, 1], 0), ([0, 2], 2), ([1, 2], 2),
        ([0, 1, 2], 1),  # 3x - 2
    ],
)  # fmt: skip
def test_logits_are_summed_as_by_hand(members, wrong):
    subset = torch.tensor([members])
    assert ensemble_errors(LOGITS, LABELS, subset).tolist() == [wrong / 6]


def test_a_single_logit_decides_by_its_sign():
    z = torch.tensor([[[2.0], [-1.0], [1.0]], [[-3.0], [-1.0], [-1.0]]])
    labels = torch.tensor([1, 0, 1])
    subsets = torch.tensor([[0, 1]])
    # Sums -1, -2 and 0, which is an error.
    assert ensemble_errors(z, labels, subsets).item() == pytest.approx(2 / 3)


def test_errors_equal_a_slow_computation():
    random = seeded(3)
    z = torch.randn(7, 50, 4, generator=random)
    y = torch.randint(4, (50,), generator=random)
    subsets = draw_subsets(7, 3, 12, random)
    slow = [
        sum(int(sum(z[i, n].double() for i in s).argmax() != y[n]) for n in range(50))
        for s in subsets.tolist()
    ]
    assert (ensemble_errors(z, y, subsets) * 50).round().long().tolist() == slow


@pytest.mark.parametrize(("count", "members"), [(12, 1), (12, 5), (9, 4)])
def test_drawn_ensembles_repeat_no_member(count, members):
    drawn = draw_subsets(count, members, 6, seeded())
    assert drawn.shape == (6, members)
    assert all(len(set(row)) == members for row in drawn.tolist())
    assert drawn.min() >= 0
    assert drawn.max() < count
    assert torch.equal(drawn, draw_subsets(count, members, 6, seeded()))


@pytest.mark.parametrize(("count", "members"), [(5, 5), (5, 2), (4, 1)])
def test_all_ensembles_once_where_there_are_no_more(count, members):
    generator = seeded()
    state = generator.get_state()
    drawn = draw_subsets(count, members, 10, generator).tolist()
    assert len(drawn) == math.comb(count, members)
    assert len({frozenset(row) for row in drawn}) == len(drawn)
    assert torch.equal(generator.get_state(), state)


def test_every_network_is_drawn_as_often():
    drawn = draw_subsets(30, 3, 4000, seeded(1))
    share = drawn.flatten().bincount() / 4000
    # Standard deviation sqrt(0.1 * 0.9 / 4000) = 0.0047.
    assert (share - 0.1).abs().max() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [((3, 4, 2), "needs as many; got 3"), ((3, 0, 2), "members"), ((3, 1, 0), "rep")],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_subsets(*options, seeded())


def test_shapes_and_labels_are_checked():
    subset = torch.tensor([[0, 1]])
    with pytest.raises(ShapeError, match=r"must have shape \(s, 6, K\)"):
        ensemble_errors(LOGITS[:, :5], LABELS, subset)
    with pytest.raises(LabelError, match="must lie in"):
        ensemble_errors(LOGITS, LABELS + 1, subset)
