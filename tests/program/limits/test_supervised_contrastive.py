import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._json import json_text
from layerpeel.program.limits import peeled_contrastive, supervised_contrastive
from layerpeel.program.solution import Status


def contrastive_loss(features, labels):
    """The sum over all pairs, as it is defined."""
    similarity = features @ features.T
    itself = torch.eye(len(labels), dtype=torch.bool)
    positive = (labels[:, None] == labels) & ~itself
    total = torch.logsumexp(similarity.masked_fill(itself, -torch.inf), dim=1)
    terms = torch.where(positive, total[:, None] - similarity, 0.0)
    return (terms.sum(dim=1) / positive.sum(dim=1)).sum()


def peeled_loss(features, labels):
    similarity = features @ features.T
    positive = (labels[:, None] == labels).double()
    terms = torch.logsumexp(similarity, dim=1)[:, None] - similarity
    return ((terms * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def minimise(loss, parametrise, shape, starts=2):
    """Direct minimisation over all samples, from random starts."""
    best, features = math.inf, None
    for seed in range(starts):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, dtype=torch.float64, generator=generator)
        x.requires_grad_()
        solver = torch.optim.LBFGS(
            [x],
            max_iter=3000,
            tolerance_grad=1e-11,
            tolerance_change=0.0,
            history_size=30,
            line_search_fn="strong_wolfe",
        )

        def closure(x=x, solver=solver):
            solver.zero_grad()
            value = loss(parametrise(x))
            value.backward()
            return value

        solver.step(closure)
        with torch.no_grad():
            value = float(loss(parametrise(x)))
            if value < best:
                best, features = value, parametrise(x)
    return best, features


def on_sphere(radius):
    return lambda x: radius * x / x.norm(dim=1, keepdim=True)


def labels_of(counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def class_gram(features, labels):
    means = torch.stack([features[labels == k].mean(dim=0) for k in labels.unique()])
    return means @ means.T


CASES = {
    "balanced": ([3, 3, 3, 3], 1.0),
    "two groups": ([6, 6, 2, 2, 2], 1.5),
    "two groups, hot": ([6, 6, 2, 2], 0.5),
    "one frequent class": ([8, 2, 2, 2], 1.0),
    "all distinct": ([7, 5, 3, 2], 2.0),
}


@pytest.mark.parametrize(("counts", "radius"), CASES.values(), ids=CASES.keys())
def test_is_the_minimum_over_all_samples(counts, radius):
    labels = labels_of(counts)
    value, features = minimise(
        lambda h: contrastive_loss(h, labels),
        on_sphere(radius),
        (len(labels), len(counts) + 2),
    )
    frame = supervised_contrastive(counts, radius=radius)
    assert frame.status.success
    assert frame.loss == pytest.approx(value, rel=1e-10)
    # Samples of a class share their feature.
    gram = class_gram(features, labels)
    np.testing.assert_allclose(gram.diagonal(), radius**2, atol=1e-4)
    np.testing.assert_allclose(frame.feature_gram, gram, atol=1e-4)
    means = frame.class_means()
    np.testing.assert_allclose(means @ means.T, frame.feature_gram, atol=1e-12)


@pytest.mark.parametrize("counts", [[3, 3, 3], [6, 4, 2]])
def test_nonnegative_features_are_orthogonal(counts):
    labels, radius = labels_of(counts), 1.3
    value, features = minimise(
        lambda h: contrastive_loss(h, labels),
        lambda x: on_sphere(radius)(x.square()),
        (len(labels), 5),
        starts=2,
    )
    frame = supervised_contrastive(counts, radius=radius, nonnegative=True)
    assert frame.status is Status.CLOSED_FORM
    assert frame.loss <= value * (1 + 1e-12)
    assert frame.loss == pytest.approx(value, rel=1e-6)
    assert (frame.class_means() >= 0).all()
    eye = radius**2 * torch.eye(3, dtype=torch.float64)
    np.testing.assert_allclose(frame.feature_gram, eye, atol=1e-15)
    np.testing.assert_allclose(class_gram(features, labels), eye, atol=1e-2)


def test_peeled_form_is_the_minimum_over_all_samples():
    counts, energy = [3, 3, 3], 1.7
    labels = labels_of(counts)

    def on_budget(x):
        return x * math.sqrt(energy * len(x)) / x.norm()

    value, features = minimise(
        lambda h: peeled_loss(h, labels), on_budget, (len(labels), 4)
    )
    frame = peeled_contrastive(3, 3, feature_energy=energy)
    assert frame.loss == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(
        frame.feature_gram, class_gram(features, labels), atol=1e-5
    )


@pytest.mark.parametrize("nonnegative", [False, True])
def test_balanced_and_orthogonal_values_are_attained(nonnegative):
    counts = [4, 4, 4]
    frame = supervised_contrastive(counts, radius=2.0, nonnegative=nonnegative)
    labels = labels_of(counts)
    attained = contrastive_loss(frame.class_means()[labels], labels)
    assert frame.loss == pytest.approx(float(attained), rel=1e-14)
    assert frame.certificate.absolute_gap == 0


@settings(deadline=None, max_examples=8)
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.floats(0.3, 6.0),
    st.randoms(use_true_random=False),
)
def test_certified_feasible_and_equivariant(counts, radius, random):
    frame = supervised_contrastive(counts, radius=radius)
    assert frame.status.success
    assert -1e-15 <= frame.certificate.gap < 1e-10
    np.testing.assert_allclose(frame.feature_gram.diagonal(), radius**2, rtol=1e-12)
    assert torch.linalg.eigvalsh(frame.feature_gram)[0] > -1e-12 * radius**2
    labels = labels_of(counts)
    attained = contrastive_loss(frame.class_means()[labels], labels)
    assert frame.loss == pytest.approx(float(attained), rel=1e-10)
    order = list(range(len(counts)))
    random.shuffle(order)
    shuffled = supervised_contrastive([counts[k] for k in order], radius=radius)
    expected = frame.feature_gram[order][:, order]
    np.testing.assert_allclose(shuffled.feature_gram, expected, atol=1e-12)


def test_rare_classes_coincide_beside_one_frequent_class():
    frame = supervised_contrastive([500, 5, 5], radius=1.0)
    assert float(frame.feature_cosines[1, 2]) == pytest.approx(1, abs=1e-9)
    assert float(frame.feature_cosines[0, 1]) == pytest.approx(-1, abs=1e-9)
    apart = supervised_contrastive([500, 5, 5], radius=4.0)
    assert float(apart.feature_cosines[1, 2]) < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_counts": [3, 1]}, "class 1: 1"),
        ({"class_counts": [3]}, "at least 2"),
        ({"class_counts": [3, math.inf]}, "finite"),
        ({"radius": 0.0}, "radius"),
        ({"class_counts": range(2, 50)}, "at most 30 distinct"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        supervised_contrastive(**{"class_counts": [3, 2], **arguments})


def test_peeled_form_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least 1"):
        peeled_contrastive(3, 0.5, feature_energy=1.0)
    with pytest.raises(ValueError, match="feature_energy"):
        peeled_contrastive(3, 5, feature_energy=-1.0)


def test_is_drawn_and_written():
    frame = supervised_contrastive([6, 6, 2, 2])
    _, ax = frame.plot()
    assert ax.get_title(loc="left") == "cosines between class means"
    assert not ax.get_title()
    assert '"CERTIFIED"' in json_text(frame.to_dict())
