import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import ClassGroups, Geometry
from layerpeel.measurement import ENERGY_CONVENTIONS, measure_features
from tests.measurement.collapsed import measured
from tests.measurement.test_metrics import blobs


def imbalanced(**kwargs):
    g = torch.Generator().manual_seed(0)
    counts = torch.tensor([40, 42, 41, 5, 4])
    y = torch.repeat_interleave(torch.arange(5), counts)
    h = 2 * torch.eye(5, 6)[y] + 0.3 * torch.randn(len(y), 6, generator=g)
    W = torch.eye(5, 6) + 0.1 * torch.randn(5, 6, generator=g)
    W[3] = W[4] = torch.tensor([0.1, 0.1, 0.1, 1.0, 1.0, 0.2])
    return measure_features(h, y, weight=W, **kwargs)


def test_sizes_and_default_names():
    m = imbalanced()
    assert (m.num_classes, m.num_samples, m.width) == (5, 132, 6)
    assert m.class_counts == (40, 42, 41, 5, 4)
    assert m.class_names == ("0", "1", "2", "3", "4")
    assert imbalanced(class_names=list("abcde")).class_names == tuple("abcde")


def test_groups_come_from_counts_or_from_the_caller():
    assert imbalanced().groups == ClassGroups((0, 1, 2), (3, 4))
    assert imbalanced(minority=[4, 1]).groups == ClassGroups((0, 2, 3), (1, 4))
    assert imbalanced(minority=()).groups.balanced


@pytest.mark.parametrize("minority", [[5], [-1], [1, 1], [0, 1, 2, 3, 4]])
def test_wrong_minorities_are_refused(minority):
    with pytest.raises(ValueError, match=r"`minority` must be different class indices"):
        imbalanced(minority=minority)


def test_a_named_minority_may_be_unseen():
    h, y, W, _ = blobs(classes=5, width=4, absent=(0, 2))
    with pytest.warns(UndefinedWarning, match="2 of 5"):
        m = measure_features(h, y, weight=W, minority=[0, 2])
    assert m.groups == ClassGroups((1, 3, 4), (0, 2))
    assert math.isfinite(m.minority_cosine)  # of classifiers, which are there
    with pytest.warns(UndefinedWarning, match="class has no samples"):
        assert math.isnan(m.feature_block.cosine)


def test_group_accuracies_are_pooled_over_samples():
    m = imbalanced()
    right = m.confusion.counts.diagonal().tolist()
    assert m.majority_accuracy == pytest.approx(sum(right[:3]) / 123)
    assert m.minority_accuracy == pytest.approx(sum(right[3:]) / 9)
    assert m.accuracy == pytest.approx(sum(right) / 132)


def test_minority_block_is_that_of_the_geometry():
    m = imbalanced()
    W = (m.weight - m.weight.mean(0)).numpy()
    norms = np.linalg.norm(W, axis=1)
    assert m.minority_cosine == pytest.approx(1.0)
    assert m.classifier_block.norm_ratio == pytest.approx(
        norms[:3].mean() / norms[3:].mean()
    )
    cosines = [W[i] @ W[j] / norms[i] / norms[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert m.majority_cosine == pytest.approx(np.mean(cosines))
    assert m.feature_block.cosine < 0.5


@pytest.mark.parametrize("centring", ["sample", "class", "none"])
def test_geometry_is_that_of_centred_vectors(centring):
    m = imbalanced()
    centre = {
        "sample": m.moments.count @ m.moments.mean / 132,
        "class": m.moments.mean.mean(0),
        "none": torch.zeros(6).double(),
    }[centring]
    expected = Geometry.of(m.weight - m.weight.mean(0), m.moments.mean - centre)
    actual = m.geometry(centring)
    for name in ("classifier_gram", "feature_gram", "logits"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))


def test_collapsed_geometry_is_a_simplex():
    cosines = measured(shift=10.0).geometry().feature_cosines
    off = cosines[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full((12,), -1 / 3).double())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.nc1("mean"), "`centring` must be one of 'sample', 'class'"),
        (lambda m: m.nc1("none"), "`centring` must be one of 'sample', 'class'"),
        (lambda m: m.nc1(pooling="all"), "`pooling` must be one of"),
        (lambda m: m.nc1_quotient(pooling="all"), "`pooling` must be one of"),
        (lambda m: m.nc2_means("mean"), "`centring` must be one of"),
        (lambda m: m.nc3("mean"), "`centring` must be one of"),
        (lambda m: m.geometry("mean"), "`centring` must be one of"),
        (lambda m: m.energy("mean"), "`convention` must be one of"),
    ],
)
def test_unknown_choices_are_listed(call, match):
    with pytest.raises(ValueError, match=match):
        call(imbalanced())


def test_without_evaluation_data_there_is_a_warning():
    m = imbalanced()
    for name in ("eval_accuracy", "eval_class_accuracy", "eval_majority_accuracy"):
        with pytest.warns(UndefinedWarning, match="held-out"):
            assert torch.as_tensor(getattr(m, name)).isnan().all()
    with pytest.warns(UndefinedWarning, match="held-out"):
        assert math.isnan(m.eval_minority_accuracy)


def test_without_minority_there_is_a_warning():
    m = measured()
    with pytest.warns(UndefinedWarning, match="balanced"):
        assert math.isnan(m.minority_accuracy)
    with pytest.warns(UndefinedWarning, match="there are 0 minority classes"):
        assert math.isnan(m.minority_cosine)


def test_cosines_without_a_pair_or_a_direction_are_undefined():
    with pytest.warns(UndefinedWarning, match="there are 1 minority classes"):
        assert math.isnan(imbalanced(minority=[4]).minority_cosine)
    with pytest.warns(UndefinedWarning, match="there are 1 majority classes"):
        assert math.isnan(imbalanced(minority=[1, 2, 3, 4]).majority_cosine)
    m = imbalanced()
    weight = m.weight - m.weight.mean(0)
    weight[3:] = 0
    weight[0] -= weight.sum(0)  # no mean row that centring would give to the others
    with pytest.warns(UndefinedWarning, match="a minority classifier has vanished"):
        assert math.isnan(replace(m, weight=weight).minority_cosine)


def test_evaluation_accuracies_by_group():
    h = torch.eye(5, 6).repeat(2, 1)
    y = torch.tensor([0, 1, 2, 3, 4, 1, 1, 2, 3, 4])
    m = imbalanced(eval_features=h, eval_labels=y)
    right = m.eval_confusion.counts.diagonal().tolist()
    assert m.eval_accuracy == sum(right) / 10
    assert m.eval_majority_accuracy == sum(right[:3]) / 6
    assert m.eval_minority_accuracy == sum(right[3:]) / 4
    assert m.eval_class_accuracy.tolist() == [
        r / n for r, n in zip(right, (1, 3, 2, 2, 2), strict=True)
    ]


def test_dictionary_is_strict_json_with_the_same_numbers():
    m = imbalanced()
    d = m.to_dict()
    assert json.loads(json.dumps(d, allow_nan=False)) == d
    assert d["nc1"]["ratio"] == m.nc1()
    assert d["nc1"]["ratio_class_averaged"] == m.nc1(pooling="class")
    assert d["nc2"]["classifiers"]["gram"] == m.nc2_classifiers().gram
    assert d["nc3"] == m.nc3()
    assert d["nc4"]["agreement"] == m.nc4()
    assert d["accuracy"]["minority"] == m.minority_accuracy
    assert d["accuracy"]["eval_overall"] is None
    assert d["minority"]["classifiers"]["cosine"] == m.minority_cosine
    assert d["class_counts"] == [40, 42, 41, 5, 4]
    assert d["groups"] == {"majority": [0, 1, 2], "minority": [3, 4]}
    assert {n: tuple(e) for n, e in d["energies"].items()} == {
        n: m.energy(n) for n in ENERGY_CONVENTIONS
    }


def test_dictionary_of_undefined_numbers_is_json_without_warnings():
    h, y, W, _ = blobs(classes=4, width=3, absent=(1,))
    with pytest.warns(UndefinedWarning, match="1 of 4"):
        m = measure_features(h, y, weight=0 * W)
    d = m.to_dict()
    json.dumps(d, allow_nan=False)
    assert d["nc3"] is None
    assert d["accuracy"]["classes"][1] is None


def test_text_is_one_line_with_the_first_numbers():
    m = imbalanced()
    assert repr(m) == (
        "Measurement(5 classes, 132 samples, width 6, head 'arrays', "
        f"accuracy {m.accuracy:.4f}, NC1 quotient {m.nc1_quotient():.3g})"
    )


def test_costly_values_are_computed_once_for_each_choice():
    m = imbalanced()
    assert m.geometry() is m.geometry()
    assert m.geometry("class") is not m.geometry("sample")
    assert m.nc1("class") != m.nc1("sample")
    other = replace(m, weight=2 * m.weight)
    assert other.geometry() is not m.geometry()


def test_a_measurement_is_frozen():
    with pytest.raises(AttributeError):
        imbalanced().loss = 0.0


def test_units_are_indices():
    h = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    h[:, 1], h[:, 3] = 0, 7
    m = measure_features(h, torch.arange(20) % 2, weight=torch.ones(2, 4))
    assert m.dead_units.tolist() == [1]
    assert m.constant_units.tolist() == [1, 3]
