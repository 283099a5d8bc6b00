import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from layerpeel._checks import (
    LabelError,
    MergeError,
    NonFiniteError,
    ShapeError,
    UndefinedWarning,
)
from layerpeel.measurement import measure_features
from layerpeel.measurement.tracking.scalars import MOMENT_SCALARS

torchmetrics = pytest.importorskip("torchmetrics", reason="an optional dependency")

from layerpeel.measurement.tracking.torchmetrics import NeuralCollapse  # noqa: E402

K, D, SHIFT = 4, 5, 1e4


def data(n=80, shift=SHIFT, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=g)
    h = 3 * torch.eye(K, D)[y] + 0.3 * torch.randn(n, D, generator=g) + shift
    return h.double(), y


def weight():
    return torch.randn(K, D, generator=torch.Generator().manual_seed(9)).double()


def two_pass(h, y):
    """NC1, its quotient and the CDNV by the textbook, in numpy."""
    h, y = h.numpy() - SHIFT, y.numpy()
    means = np.stack([h[y == k].mean(0) for k in range(K)])
    centred = h - means[y]
    within = centred.T @ centred / len(y)
    m = means - h.mean(0)
    between = m.T @ m / K
    v = np.array([(centred[y == k] ** 2).sum(1).mean() for k in range(K)])
    pairs = [(j, k) for j in range(K) for k in range(K) if j != k]
    cdnv = np.mean(
        [(v[j] + v[k]) / 2 / ((means[j] - means[k]) ** 2).sum() for j, k in pairs]
    )
    pinv = np.linalg.pinv(between, rcond=1e-6)
    return np.trace(within @ pinv) / K, np.trace(within) / np.trace(between), cdnv


def updated(*parts, **kwargs):
    metric = NeuralCollapse(K, D, weight(), **kwargs)
    for h, y in parts:
        metric.update(h, y)
    return metric


def numbers(values):
    return {name: float(value) for name, value in values.items()}


def test_values_are_those_of_the_textbook():
    h, y = data()
    got = numbers(updated(*zip(h.split(7), y.split(7), strict=True)).compute())
    assert tuple(got) == MOMENT_SCALARS
    chosen = [got[name] for name in ("nc1", "nc1_quotient", "cdnv")]
    assert chosen == pytest.approx(two_pass(h, y), rel=1e-8)
    m = measure_features(h, y, weight=weight())
    assert got["nc3"] == pytest.approx(m.nc3(), rel=1e-9)


def test_results_are_float64_tensors():
    h, y = data(shift=0.0)
    for value in updated((h.half(), y)).compute().values():
        assert value.dtype == torch.float64
        assert value.ndim == 0


def test_forward_gives_the_batch_and_keeps_the_rest():
    (h, y), metric = data(), NeuralCollapse(K, D, weight())
    for a, b in zip(h.split(20), y.split(20), strict=True):
        of_batch = numbers(metric(a, b))
        assert of_batch == pytest.approx(numbers(updated((a, b)).compute()), rel=1e-9)
    whole = numbers(updated((h, y)).compute())
    assert numbers(metric.compute()) == pytest.approx(whole, rel=1e-10)


def test_merging_states_is_exact():
    h, y = data()
    a, b = updated((h[:13], y[:13])), updated((h[13:], y[13:]))
    before = a.compute()  # cached
    a.merge_state(b)
    assert numbers(a.compute()) != numbers(before)
    whole = numbers(updated((h, y)).compute())
    assert numbers(a.compute()) == pytest.approx(whole, rel=1e-10)
    c = updated((h[:13], y[:13]))
    c.merge_state(b.metric_state)
    assert torch.equal(c.moments, a.moments)


def test_merging_other_sizes_is_refused():
    with pytest.raises(MergeError, match=r"\(4, 5\) and \(3, 6\)"):
        updated().merge_state(NeuralCollapse(3, 6))


def test_reset():
    h, y = data()
    metric = updated((h, y))
    metric.reset()
    metric.update(h[:40], y[:40])
    assert numbers(metric.compute()) == numbers(updated((h[:40], y[:40])).compute())


@pytest.mark.parametrize(
    "convert",
    [
        lambda m: m.half(),
        lambda m: m.float(),
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu", torch.bfloat16),
        lambda m: m.set_dtype(torch.float16),
        lambda m: nn.ModuleList([m]).half()[0],
        lambda m: nn.ModuleList([m]).to(torch.float16)[0],
        lambda m: m.clone(),
        deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301 - made here
    ],
)
def test_statistics_stay_float64_and_whole(convert):
    h, y = data()
    metric = updated((h[:40], y[:40]))
    other = convert(metric)
    other.update(h[40:], y[40:])
    assert other.moments.dtype == torch.float64
    whole = numbers(updated((h, y)).compute())
    assert numbers(other.compute()) == pytest.approx(whole, rel=1e-10)
    other.reset()
    assert other.moments.dtype == torch.float64


def test_other_devices_keep_the_statistics_where_they_are_moved():
    metric = NeuralCollapse(K, D).to("meta")
    assert metric.moments.device.type == "meta"
    assert metric.device.type == "meta"
    assert metric.moments.dtype == torch.float64


def test_the_head_is_read_but_not_owned():
    head = nn.Linear(D, K)
    metric = NeuralCollapse(K, D, head, metrics=["nc3", "nc1"])
    metric.update(*data())
    assert not list(metric.parameters())
    before = numbers(metric.compute())
    clone = metric.clone()
    with torch.no_grad():
        head.weight.copy_(weight())
    metric._computed = clone._computed = None
    after = numbers(metric.compute())
    assert numbers(clone.compute()) == after
    assert after["nc3"] != before["nc3"]
    assert after["nc1"] == before["nc1"]


def test_a_module_that_is_copied_takes_its_head_along():
    module = nn.Module()
    module.head = nn.Linear(D, K)
    module.metric = NeuralCollapse(K, D, module.head)
    other = deepcopy(module)
    assert other.metric._source[0] is other.head


def test_in_a_collection():
    h, y = data()
    collection = torchmetrics.MetricCollection(
        {
            "first": NeuralCollapse(K, D, weight(), metrics=["nc1", "nc3"]),
            "other": NeuralCollapse(K, D, 2 * weight()[:, [1, 0, 2, 3, 4]]),
        },
        prefix="nc/",
    )
    for a, b in zip(h.split(30), y.split(30), strict=True):
        collection.update(features=a, labels=b)
    values = collection.compute()
    whole = numbers(updated((h, y)).compute())
    assert float(values["nc/first_nc1"]) == pytest.approx(whole["nc1"], rel=1e-10)
    assert float(values["nc/first_nc3"]) == pytest.approx(whole["nc3"], rel=1e-10)
    assert float(values["nc/other_nc3"]) != pytest.approx(whole["nc3"], rel=1e-3)
    assert len(collection.compute_groups) == 1  # they share one state


def test_in_a_collection_with_other_metrics():
    class Accuracy(torchmetrics.Metric):
        full_state_update = False

        def __init__(self):
            super().__init__()
            self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")

        def update(self, logits, labels):
            self.right += (logits.argmax(1) == labels).sum()

        def compute(self):
            return self.right

    h, y = data()
    both = torchmetrics.MetricCollection([NeuralCollapse(K, D), Accuracy()])
    both.update(features=h, labels=y, logits=h @ weight().T)
    assert {"nc1", "Accuracy"} <= set(both.compute())


def test_nothing_seen_is_undefined():
    with pytest.warns(UndefinedWarning), pytest.warns(UserWarning, match="before"):
        values = NeuralCollapse(K, D).compute()
    assert all(value.isnan() for value in values.values())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: NeuralCollapse(K, D, weight().T),
            ShapeError,
            r"\(4, 5\); got \(5, 4\)",
        ),
        (lambda: NeuralCollapse(0, D), ValueError, "num_classes"),
        (lambda: NeuralCollapse(K, D, metrics=["nc3"]), ValueError, "nc3"),
        (lambda: NeuralCollapse(K, D, metrics=["nc4"]), ValueError, "nc4"),
        (lambda: updated((torch.ones(3, 4), torch.arange(3))), ShapeError, r"\(B, 5\)"),
        (
            lambda: updated((torch.ones(3, D), torch.arange(3) + 2)),
            LabelError,
            "labels",
        ),
        (lambda: updated((torch.ones(3, D), torch.ones(3))), LabelError, "integers"),
    ],
)
def test_wrong_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_plots():
    h, y = data()
    metric = updated((h, y))
    fig, ax = metric.plot()
    assert ax.figure is fig
    assert [t.get_text() for t in ax.get_yticklabels()] == list(MOMENT_SCALARS)
    assert metric.plot(ax=ax)[1] is ax
    lines = metric.plot([metric.compute(), metric.compute()])[1].lines
    assert {"nc1", "nc3"} <= {line.get_label() for line in lines}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_refused_and_not_added(value):
    metric = NeuralCollapse(2, 3)
    metric.update(torch.eye(3), torch.tensor([0, 1, 0]))
    before = metric.moments.clone()
    bad = torch.ones(4, 3)
    bad[2, 1] = value
    with pytest.raises(NonFiniteError, match=r"1 of 4 samples.*1 \(1\)"):
        metric.update(bad, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(metric.moments, before)


def test_metrics_of_the_classifiers_need_them():
    with pytest.raises(ValueError, match="Pass `weight`"):
        NeuralCollapse(3, 4, metrics=["nc3"])


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=">= 2"):
        NeuralCollapse(1, 4)
