import json
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerpeel._checks import (
    LayerpeelError,
    NonFiniteError,
    StateError,
    UndefinedWarning,
)
from layerpeel.measurement import measure
from layerpeel.measurement.tracking import Tracker
from tests.measurement.tracking.networks import arrays, loader, network, train

NAMES = ["nc1", "nc3", "nc4", "accuracy"]


def run(tracker, epochs, each=lambda labels: None, batches=None, model=None):
    for epoch in epochs:
        generator = torch.Generator().manual_seed(epoch)
        torch.manual_seed(epoch)
        data = batches or loader(generator=generator)
        train(model or tracker.model, data, each)
        tracker.step(epoch, step=4 * (epoch + 1))


def test_scalars_are_those_of_measure():
    tracker = Tracker(network(), loader(), metrics=NAMES)
    run(tracker, range(2))
    m = measure(tracker.model, loader(shuffle=False))
    got = {name: tracker.history[name].values[-1] for name in NAMES}
    expected = dict(zip(NAMES, [m.nc1(), m.nc3(), m.nc4(), m.accuracy], strict=True))
    assert got == pytest.approx(expected, rel=1e-9)
    assert tracker.history["nc1"].steps.tolist() == [4, 8]
    assert tracker.history["nc1"].epochs.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("mode", ["evaluate", "running"])
def test_training_is_what_it_would_be(mode):
    plain, tracked = network(), network()
    tracker = Tracker(tracked, loader(), mode=mode)
    each = tracker.update if mode == "running" else lambda labels: None
    batches = loader()  # shuffled by the global generator
    torch.manual_seed(0)
    for _ in range(3):
        train(plain, batches)
    torch.manual_seed(0)
    for epoch in range(3):
        train(tracked, batches, each)
        tracker.step(epoch)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, tracked.state_dict()[name]), name
    assert all(module.training for module in tracked.modules())


def test_the_loader_of_training_may_be_measured_amid_an_epoch():
    g = torch.Generator().manual_seed(0)
    batches = DataLoader(TensorDataset(*arrays()), 16, shuffle=True, generator=g)
    model = network()
    tracker = Tracker(model, batches)
    seen = []
    for step, (x, y) in enumerate(batches):
        seen.append(len(y))
        train(model, [(x, y)])
        tracker.measure(step, epoch=step / 4)
    assert seen == [16, 16, 16, 12]
    assert tracker.history["nc1"].epochs.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_every_so_many_epochs():
    tracker = Tracker(network(), loader(), metrics=["nc3"], every=3)
    results = [tracker.step(epoch) for epoch in range(7)]
    assert [epoch for epoch, r in enumerate(results) if r is not None] == [0, 3, 6]
    assert tracker.history["nc3"].steps.tolist() == [0, 3, 6]


def test_functions_and_options_reach_the_measurement():
    tracker = Tracker(
        network(),
        loader(),
        metrics={
            "nc1_class": lambda m: m.nc1(pooling="class"),
            "k": lambda m: m.num_classes,
        },
        eval_loader=loader(9, shuffle=False),
        options={"class_names": ["a", "b", "c"]},
    )
    scalars = tracker.measure(0)
    expected = measure(tracker.model, loader(shuffle=False)).nc1(pooling="class")
    assert scalars == pytest.approx({"nc1_class": expected, "k": 3.0}, rel=1e-9)


def test_held_out_accuracy_comes_with_held_out_data():
    held_out = loader(9, shuffle=False)
    tracker = Tracker(network(), loader(), eval_loader=held_out)
    expected = measure(tracker.model, loader(), eval_loader=held_out).eval_accuracy
    assert tracker.measure(0)["eval_accuracy"] == expected
    assert "eval_accuracy" not in Tracker(network(), loader()).measure(0)


def test_a_subset_is_measured_alone():
    tracker = Tracker(network(), loader(), subset=12, seed=3, metrics=NAMES)
    x, y = arrays()
    chosen = tracker.state_dict()["indices"]
    m = measure(tracker.model, [(x[chosen], y[chosen])])
    assert tracker.measure(0)["nc1"] == pytest.approx(m.nc1(), rel=1e-9)
    assert m.class_counts == (4, 4, 4)


def test_running_statistics_are_reset_each_time():
    tracker = Tracker(network(), mode="running")
    run(tracker, range(2), tracker.update)
    assert len(tracker.history["nc1"].values) == 2
    with pytest.raises(LayerpeelError, match="labelled batch"):
        tracker.step(2, step=12)


def test_running_statistics_of_a_network_at_rest_are_those_of_evaluation():
    model = network()
    for module in (model[1], model[3]):  # what differs between the modes
        module.eval()
        module.train = lambda mode=True: None
    tracker = Tracker(model, mode="running", metrics=["nc1", "nc3", "cdnv"])
    train(model, loader(), tracker.update, lr=0.0)
    expected = Tracker(model, loader(), metrics=["nc1", "nc3", "cdnv"]).measure(0)
    assert tracker.measure(0) == pytest.approx(expected, rel=1e-9)


def test_hooks_are_gone_after_the_context():
    model = network()
    with Tracker(model, mode="running") as tracker:
        x, y = arrays()
        with tracker.batch(y):
            model(x)
        tracker.measure(0)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert len(tracker.history) > 0


def test_a_diverged_network_is_recorded_as_undefined():
    tracker = Tracker(network(), loader(), metrics=NAMES)
    tracker.measure(0)
    with torch.no_grad():
        tracker.model[0].weight.fill_(torch.nan)
    with pytest.warns(UndefinedWarning, match="must be finite"):
        scalars = tracker.measure(1)
    assert all(map(math.isnan, scalars.values()))
    assert list(scalars) == NAMES
    fresh = Tracker(tracker.model, loader())
    with pytest.raises(NonFiniteError):
        fresh.measure(0)


def test_undefined_metrics_warn_once():
    x, y = arrays()
    tracker = Tracker(network(), [(x, y % 2)], metrics=["nc3", "minority_cosine"])
    with pytest.warns(UndefinedWarning) as record:
        tracker.measure(0)
    assert len(record) == 2  # an absent class, and no minority
    assert math.isnan(tracker.measure(1)["minority_cosine"])


@pytest.mark.parametrize("mode", ["evaluate", "running"])
@pytest.mark.parametrize("through", ["torch", "json"])
def test_a_resumed_run_is_the_uninterrupted_one(mode, through, tmp_path):
    def tracker_of(model, name, **kwargs):
        data = {"subset": 12} if mode == "evaluate" else {}
        return Tracker(model, loader(), mode=mode, **data, **kwargs)

    def each(tracker):
        return tracker.update if mode == "running" else lambda labels: None

    whole = tracker_of(network(), "whole", loggers=[tmp_path / "whole.csv"])
    run(whole, range(4), each(whole))

    first = tracker_of(network(), "first", loggers=[tmp_path / "run.csv"])
    run(first, range(2), each(first))
    state, weights = (
        first.state_dict(),
        {k: v.clone() for k, v in first.model.state_dict().items()},
    )
    run(first, range(2, 3), each(first))  # lost: after the checkpoint
    first.close()
    if through == "torch":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    else:
        state = json.loads(json.dumps(state, default=torch.Tensor.tolist))

    from layerpeel.measurement.tracking import CSVLogger

    model = network(seed=9)
    model.load_state_dict(weights)
    log = CSVLogger(tmp_path / "run.csv", resume=True)
    second = tracker_of(model, "second", loggers=log)
    second.load_state_dict(state)
    run(second, range(2, 4), each(second))
    assert list(second.history) == list(whole.history)
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert second.history.to_csv(tmp_path / "h.csv").read_text() == log.path.read_text()


OTHERS = {
    "model": (lambda: Tracker(nn.Linear(5, 3), loader(), subset=9), "names or shapes"),
    "metrics": (
        lambda: Tracker(network(), loader(), subset=9, metrics=["nc1"]),
        "`metrics` is",
    ),
    "mode": (lambda: Tracker(network(), mode="running"), "`mode` is 'evaluate'"),
    "size": (lambda: Tracker(network(), loader(), subset=10), r"`subset` is \[9, 0\]"),
    "seed": (lambda: Tracker(network(), loader(), subset=9, seed=1), "`subset` is"),
    "data": (lambda: Tracker(network(), loader(90), subset=9), "other samples"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_state_of_something_else_is_refused(what):
    tracker = Tracker(network(), loader(), subset=9)
    tracker.measure(3)
    other, match = OTHERS[what]
    other = other()
    with pytest.raises(StateError, match=match):
        other.load_state_dict(tracker.state_dict())
    assert len(other.history) == 0


def test_a_state_of_another_version_is_refused():
    tracker = Tracker(network(), loader())
    with pytest.raises(StateError, match="version 1; got None"):
        tracker.load_state_dict({})


def test_wrapped_models_are_the_same():
    tracker = Tracker(network(), loader(), metrics=["nc3"])
    tracker.measure(0)
    wrapped = Tracker(nn.DataParallel(network()), loader(), metrics=["nc3"])
    wrapped.load_state_dict(tracker.state_dict())
    assert wrapped.history.last_step == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"mode": "both"}, "`mode` must be one of"),
        ({"every": 0}, "`every`"),
        ({"metrics": ["nc9"]}, "nc9"),
        ({"subset": 2}, "number of classes, 3"),
        ({"mode": "running", "subset": 5}, "take no `subset`"),
        ({"mode": "running", "metrics": ["loss"]}, "'loss' is not told"),
        ({"mode": "running", "metrics": {"x": lambda m: 0.0}}, "take no functions"),
        ({"mode": "running", "layers": "all"}, "take no `layers`"),
        ({"loader": None}, "`loader` must be given"),
    ],
)
def test_wrong_arguments(arguments, match):
    model = network()
    with pytest.raises(ValueError, match=match):
        Tracker(model, **({"loader": loader()} | arguments))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_labels_are_for_running_statistics():
    with pytest.raises(ValueError, match="this tracker evaluates"):
        Tracker(network(), loader()).update(torch.tensor([0]))


def test_a_step_twice_is_refused_before_anything_is_read():
    read = []

    class Counting(list):
        def __iter__(self):
            read.append(1)
            return super().__iter__()

    tracker = Tracker(network(), Counting([arrays()]))
    tracker.measure(0)
    read.clear()
    with pytest.raises(ValueError, match="must grow"):
        tracker.measure(0)
    assert not read


def test_layers_are_recorded_too():
    tracker = Tracker(network(), loader(), metrics=["nc1"], layers=["2", "5"])
    scalars = tracker.measure(0)
    profile = measure(tracker.model, loader(shuffle=False), layers=["2", "5"]).profile
    assert scalars["5/cdnv"] == pytest.approx(float(profile.cdnv()[1]), rel=1e-9)
    assert set(scalars) > {"nc1", "2/cdnv", "2/nc1_quotient", "5/numerical_rank"}


@pytest.mark.parametrize("layers", ["all", ["2"], torch.nn.ReLU, None])
def test_a_state_with_other_layers_is_refused(layers):
    state = Tracker(network(), loader(), layers=["2", "5"]).state_dict()
    with pytest.raises(StateError, match="layers"):
        Tracker(network(), loader(), layers=layers).load_state_dict(state)
