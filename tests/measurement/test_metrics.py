"""Every metric against the slow reference, over data, splits, shifts and dtypes."""

import warnings

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import measure, measure_features
from layerpeel.measurement.statistics import moments
from tests.measurement.reference import Reference, assert_agrees


def blobs(
    classes,
    width,
    *,
    shift=0.0,
    absent=(),
    dead=(),
    constant=(),
    dtype=torch.float32,
    seed=0,
):
    """Unequal blobs of features, their labels, and a head that is mostly right."""
    g = torch.Generator().manual_seed(seed)
    counts = [0 if k in absent else 5 + 7 * k for k in range(classes)]
    y = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=g)]
    centres = 3 * torch.randn(classes, width, generator=g)
    h = centres[y] + torch.randn(len(y), width, generator=g) + shift
    h[:, list(dead)] = 0.0
    h[:, list(constant)] = 2.5
    W = (centres + torch.randn(classes, width, generator=g)).double()
    b = 5 * torch.randn(classes, generator=g).double()
    # Far from the origin, a bias keeps the decisions from being those of one class.
    return h.to(dtype), y, W, b - W @ torch.full((width,), shift).double()


CASES = {
    "plain": {"classes": 4, "width": 6},
    "more classes than features": {"classes": 9, "width": 4},
    "two classes": {"classes": 2, "width": 3},
    "one feature": {"classes": 3, "width": 1},
    "absent classes": {"classes": 6, "width": 7, "absent": (0, 3)},
    "dead and constant units": {
        "classes": 4,
        "width": 9,
        "dead": (1, 8),
        "constant": (3,),
    },
    "far away": {"classes": 4, "width": 6, "shift": 1e4},
    "far away, few features": {"classes": 9, "width": 4, "shift": 1e4},
    "float64 very far away": {
        "classes": 3,
        "width": 5,
        "shift": 1e6,
        "dtype": torch.float64,
    },
    "float16": {"classes": 4, "width": 6, "dtype": torch.float16},
    "bfloat16": {"classes": 4, "width": 6, "dtype": torch.bfloat16},
}
# Far from the origin a mean is known to an ulp of the shift, and no better.
TOLERANCES = {"float64 very far away": 1e-8}


@pytest.mark.filterwarnings("ignore::layerpeel._checks.UndefinedWarning")
@pytest.mark.parametrize("batch_size", [1, 7, 10**6], ids="batch={}".format)
@pytest.mark.parametrize("name", CASES)
def test_features_agree_with_reference(name, batch_size):
    h, y, W, b = blobs(**CASES[name])
    m = measure_features(h, y, weight=W, bias=b, batch_size=batch_size)
    z = h.double() @ W.T + b
    assert_agrees(m, Reference(h.double(), y, W, z), TOLERANCES.get(name, 1e-10))


# A batch size of one is slow under run-time shape checks: on the hardest cases only.
FORWARD_CASES = [
    *((name, 13, 2**20) for name in CASES if name not in TOLERANCES),
    *((name, 10**6, 0) for name in CASES if name not in TOLERANCES),
    ("far away", 1, 2**20),
    ("absent classes", 1, 0),
]


@pytest.mark.filterwarnings("ignore::layerpeel._checks.UndefinedWarning")
@pytest.mark.parametrize(("name", "batch_size", "cache_bytes"), FORWARD_CASES)
def test_model_agrees_with_reference(name, batch_size, cache_bytes):
    h, y, W, b = blobs(**CASES[name])
    model = torch.nn.Linear(h.shape[1], len(W)).to(h.dtype)
    with torch.no_grad():
        model.weight.copy_(W)
        model.bias.copy_(b)
        batches = list(zip(h.split(batch_size), y.split(batch_size), strict=True))
        z = torch.cat([model(x) for x, _ in batches])  # the network's own decisions
    m = measure(model, batches, cache_bytes=cache_bytes)
    W = model.weight.detach().double()
    assert_agrees(m, Reference(h.double(), y, W, z.double()))


@pytest.mark.parametrize("shift", [0.0, 1e4], ids="shift={}".format)
@pytest.mark.parametrize("rows", [3, 16], ids="fold={}".format)
def test_many_folds_agree_with_reference(rows, shift, monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_ROWS", rows)
    monkeypatch.setattr(moments, "_CHUNK_ROWS_PER_CLASS", 0)
    monkeypatch.setattr(moments, "_BLOCK_ROWS", 2)
    monkeypatch.setattr(moments, "_BLOCK_ENTRIES", 1)
    h, y, W, b = blobs(classes=5, width=6, shift=shift)
    for batch_size in (1, 5, 64):
        m = measure_features(h, y, weight=W, bias=b, batch_size=batch_size)
        assert_agrees(m, Reference(h, y, W, h.double() @ W.T + b))


def test_sorted_by_class_agrees_with_reference():
    h, y, W, b = blobs(classes=5, width=6, shift=1e4)
    order = torch.argsort(y)
    h, y = h[order], y[order]
    m = measure_features(h, y, weight=W, bias=b, batch_size=4)
    assert_agrees(m, Reference(h, y, W, h.double() @ W.T + b))


def test_long_stream_agrees_with_reference():
    g = torch.Generator().manual_seed(3)
    y = torch.randint(0, 3, (20_000,), generator=g)
    h = torch.randn(3, 4, generator=g)[y] + torch.randn(20_000, 4, generator=g) + 1e4
    W = torch.randn(3, 4, generator=g).double()
    b = -W @ torch.full((4,), 1e4).double()
    m = measure_features(h, y, weight=W, bias=b, batch_size=1000)
    assert_agrees(m, Reference(h, y, W, h.double() @ W.T + b))


def test_absent_classes_are_named_and_nan():
    h, y, W, b = blobs(classes=6, width=7, absent=(0, 3))
    names = ["ant", "bee", "cat", "dog", "eel", "fox"]
    with pytest.warns(
        UndefinedWarning, match=r"2 of 6 classes have no samples.*ant, dog"
    ):
        m = measure_features(h, y, weight=W, bias=b, class_names=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (
            m.class_accuracy,
            m.nearest_mean.class_agreement,
            m.geometry().feature_norms,
            m.moments.class_means[:, 0],
            m.moments.class_variances,
        ):
            assert values.isnan().tolist() == [True, False, False, True, False, False]
        assert np.isfinite([m.nc1(), m.nc3(), m.cdnv(), m.nc4(), *m.energy()]).all()
        assert not m.geometry().classifier_cosines.isnan().any()
        assert m.class_counts[0] == m.class_counts[3] == 0


def test_a_sample_per_class_has_no_variability():
    h = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    with pytest.warns(UndefinedWarning, match="Every class has one sample"):
        m = measure_features(h, [0, 1, 2], weight=torch.eye(3)[:, :2])
    assert m.nc1() == m.nc1_quotient() == m.cdnv() == 0.0
    assert m.nc1(pooling="class") == 0.0


def test_one_class_alone_leaves_its_own_numbers():
    h = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    with pytest.warns(UndefinedWarning, match="1 of 2 classes"):
        m = measure_features(h, [0, 0], weight=torch.eye(2))
    assert m.accuracy == 0.5
    assert m.nc4() == 0.5  # the only class mean is nearest to both
    with pytest.warns(UndefinedWarning, match="do not differ"):
        assert np.isnan(m.nc1())


def test_long_lists_of_absent_classes_are_cut():
    h = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    with pytest.warns(UndefinedWarning, match=r"28 of 30 .*2, 3, .* \(20 more\)"):
        measure_features(h, [0, 1, 1], weight=torch.ones(30, 2))
