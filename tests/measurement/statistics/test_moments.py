import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import LabelError, MergeError, ShapeError
from layerpeel.measurement import ClassMoments
from tests.measurement.reference import careful_mean, gram, sq

FIELDS = ("count", "mean", "scatter", "trace")


def reference(h, y, K):
    """Per-class loop over two passes in float64."""
    h, y = h.double().numpy(), y.numpy()
    groups = [h[y == k] for k in range(K)]
    means = [careful_mean(g) if len(g) else 0 * h[:1].sum(0) for g in groups]
    scatters = [gram(g - m) for g, m in zip(groups, means, strict=True)]
    traces = [sq(g - m).sum() for g, m in zip(groups, means, strict=True)]
    values = [len(g) for g in groups], means, sum(scatters), traces
    return ClassMoments(
        *(torch.from_numpy(np.array(v, dtype=np.float64)) for v in values)
    )


def assert_close(a, b, rtol=1e-11, atol=1e-9):
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(a, name),
            getattr(b, name),
            rtol=rtol,
            atol=atol,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def data(seed=0, n=60, d=5, classes=3, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g) + shift, torch.randint(
        0, classes, (n,), generator=g
    )


@pytest.mark.parametrize("shift", [0.0, 1e2, 1e4], ids="shift={}".format)
@pytest.mark.parametrize(
    "sizes", [[60], [1] * 60, [7, 0, 53], [59, 1]], ids=lambda s: f"splits={len(s)}"
)
def test_any_split_agrees_with_reference(shift, sizes):
    h, y = data(shift=shift)  # class 3 stays empty
    total = ClassMoments.empty(4, 5)
    for a, b in zip(h.split(sizes), y.split(sizes), strict=True):
        total = total.merge(ClassMoments.of(a, b, 4))
    assert_close(total, reference(h, y, 4))


def test_comparison_can_fail():
    h, y = data()
    whole = reference(h, y, 3)
    for name in FIELDS:
        changed = {n: getattr(whole, n).clone() for n in FIELDS}
        changed[name].view(-1)[0] += 1e-6
        with pytest.raises(AssertionError, match=name):
            assert_close(whole, ClassMoments(**changed))


# A few samples, each a class and two features on a grid of halves, so that sums are exact.
samples = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-40, 40), st.integers(-40, 40)),
    max_size=12,
)


def moments_of(rows):
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return ClassMoments.of(table[:, 1:] / 2, table[:, 0].long(), 3)


@settings(max_examples=60, deadline=None)
@given(samples, samples, samples)
def test_merge_is_associative_and_commutative_and_additive(a, b, c):
    x, y, z = map(moments_of, (a, b, c))
    assert_close(x.merge(y), y.merge(x))
    assert_close(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert_close(x.merge(y).merge(z), moments_of(a + b + c))


@settings(max_examples=20, deadline=None)
@given(samples)
def test_empty_is_neutral(a):
    x, empty = moments_of(a), ClassMoments.empty(3, 2)
    for merged in (x.merge(empty), empty.merge(x)):
        assert_close(merged, x, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(samples, st.integers(-50, 50))
def test_moving_features_moves_means_only(a, offset):
    table = torch.tensor(a, dtype=torch.float64).reshape(-1, 3)
    there = ClassMoments.of(table[:, 1:] / 2 + offset, table[:, 0].long(), 3)
    moved = moments_of(a).moved(torch.full((2,), float(offset), dtype=torch.float64))
    assert_close(moved, there)


def test_unseen_classes_have_zero_mean_inside_and_nan_outside():
    moments = ClassMoments.of(torch.ones(2, 3), torch.tensor([0, 0]), 2)
    assert moments.mean[1].tolist() == [0, 0, 0]
    assert moments.class_means[1].isnan().all()
    assert moments.class_variances.isnan().tolist() == [False, True]


def test_sums_are_float64_whatever_the_dtype():
    h = torch.full((3000, 1), 1000.0, dtype=torch.float16)  # float16 sums end at 65504
    moments = ClassMoments.of(h, torch.zeros(3000, dtype=torch.uint8), 1)
    assert moments.mean.item() == 1000.0
    assert {getattr(moments, name).dtype for name in FIELDS} == {torch.float64}


def test_features_are_left_alone():
    h, y = data()
    h = h.double().requires_grad_()
    before = h.detach().clone()
    moments = ClassMoments.of(h, y, 3)
    assert torch.equal(h, before)
    assert not moments.mean.requires_grad


@pytest.mark.parametrize(
    ("features", "labels", "error", "match"),
    [
        (torch.zeros(3), torch.zeros(3).long(), ShapeError, r"\(n, d\)"),
        (torch.zeros(3, 2, 2), torch.zeros(3).long(), ShapeError, r"flatten"),
        (torch.zeros(3, 2), torch.zeros(2).long(), ShapeError, r"shape \(3,\)"),
        (torch.zeros(1, 2), torch.tensor([5]), LabelError, r"\[0, 2\)"),
        (torch.zeros(1, 2), torch.tensor([0.0]), LabelError, "integers"),
    ],
)
def test_rejects(features, labels, error, match):
    with pytest.raises(error, match=match):
        ClassMoments.of(features, labels, 2)


def test_refuses_to_merge_other_shapes():
    with pytest.raises(MergeError, match=r"`mean`.*\(2, 3\) and shape \(2, 4\)"):
        ClassMoments.empty(2, 3).merge(ClassMoments.empty(2, 4))
