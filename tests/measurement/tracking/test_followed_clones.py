import json
import math

import pytest
import torch
from torch import nn

from layerpeel._checks import ShapeError, StateError, UndefinedWarning
from layerpeel.measurement import measure
from layerpeel.measurement.clones import (
    ChunkClassifiers,
    chunk_errors,
    draw_chunks,
    reconstruct,
)
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.tracking import Clones, Tracker
from layerpeel.measurement.tracking.followed_clones import whole_covariance
from tests.measurement.tracking.networks import arrays, loader, network, train

EPS32 = torch.finfo(torch.float32).eps
PARTS = ("r_squared", "residual_correlation", "raw_error", "folded_error")


def features_of(model, x):
    was = model.training
    model.eval()
    with torch.no_grad():
        h = model[:6](x)
    model.train(was)
    return h


def by_hand(model, x, y, clones, seed, eps=EPS32):
    """Every scalar, from the features, chunk by chunk."""
    h, head = features_of(model, x), model[6]
    covariance = Covariance.of(h)
    g = torch.Generator().manual_seed(seed)
    found = {}
    for w in clones.widths:
        chunks = draw_chunks(h.shape[1], w, clones.repeats, g)
        items = [reconstruct(covariance, chunk, eps=eps) for chunk in chunks]
        raw = ChunkClassifiers.of(head.weight, head.bias, chunks)
        folded = ChunkClassifiers.folded(head.weight, head.bias, items)
        tables = (
            [item.r_squared(clones.scope) for item in items],
            [item.residual_correlation(clones.scope) for item in items],
            chunk_errors(h, y, raw).tolist(),
            chunk_errors(h, y, folded).tolist(),
        )
        for name, values in zip(PARTS, tables, strict=True):
            values = torch.tensor(values, dtype=torch.float64)
            found[f"clones/{w}/{name}"] = float(values.mean())
            found[f"clones/{w}/{name}_spread"] = float(values.std())
    with torch.no_grad():
        logits = head(h)
    found["clones/full_error"] = float((logits.argmax(1) != y).double().mean())
    return found


@pytest.mark.parametrize("scope", ["all", "complement"])
def test_scalars_are_those_of_chunks_by_hand(scope):
    clones = Clones([1, 3, 4], repeats=5, scope=scope)
    tracker = Tracker(
        network(), loader(), metrics=["accuracy"], subset=30, seed=3, clones=clones
    )
    x, y = arrays()
    chosen = tracker.state_dict()["indices"]
    for epoch in range(3):
        train(tracker.model, loader(generator=torch.Generator().manual_seed(epoch)))
        scalars = tracker.step(epoch)
        expected = by_hand(tracker.model, x[chosen], y[chosen], clones, seed=3)
        accuracy = scalars.pop("accuracy")
        assert scalars == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert accuracy == pytest.approx(1 - scalars["clones/full_error"])
        assert len(tracker.history["clones/3/folded_error"].values) == epoch + 1


def test_what_is_measured_besides_stays_as_it_is():
    plain, followed = (
        Tracker(network(), loader(), clones=clones) for clones in (None, "dyadic")
    )
    expected, found = plain.measure(0), followed.measure(0)
    assert {name: found[name] for name in expected} == expected
    assert {name.split("/")[1] for name in set(found) - set(expected)} == {
        "1", "3", "full_error",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["evaluate", "running"])
def test_training_is_what_it_would_be(mode):
    models, batches = (network(), network()), loader()
    tracker = Tracker(models[1], loader(), mode=mode, clones=[2])
    torch.manual_seed(0)
    for _ in range(2):
        train(models[0], batches)
    torch.manual_seed(0)
    for epoch in range(2):
        hear = tracker.update if mode == "running" else lambda labels: None
        train(models[1], batches, hear)
        tracker.step(epoch)
    tracker.close()
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name
    assert not any(module._forward_hooks for module in models[1].modules())


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = network(), 0

    def forward(self, x):
        self.calls += 1
        return self.net(x)


def test_following_takes_no_further_pass():
    calls = []
    for clones in (None, [2]):
        model = Counting()
        tracker = Tracker(model, loader(batch_size=6), clones=clones)
        tracker.measure(0)
        model.calls = 0
        tracker.measure(1)
        calls.append(model.calls)
    assert calls[0] == calls[1] > 0


def test_clones_without_other_metrics():
    tracker = Tracker(network(), loader(), metrics=[], clones=Clones([2], repeats=1))
    assert list(tracker.measure(0)) == [
        "clones/full_error", *(f"clones/2/{name}" for name in PARTS),
    ]  # fmt: skip


def still(model):
    """Training does what evaluation does: no noise of batches in it."""
    for module in (model[1], model[3]):
        module.eval()
        module.train = lambda mode=True: None
    return model


def test_running_statistics_tell_all_but_errors():
    clones = Clones([2, 4], repeats=5)
    tracker = Tracker(
        still(network()), mode="running", metrics=["nc3"], clones=clones, seed=4
    )
    train(tracker.model, loader(), tracker.update, lr=0.0)
    scalars = tracker.measure(0)
    expected = by_hand(tracker.model, *arrays(), clones, seed=4)
    told = {name: value for name, value in expected.items() if "error" not in name}
    assert set(scalars) == {"nc3", *told}
    assert {name: scalars[name] for name in told} == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("mode", ["evaluate", "running"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_copies_are_reconstructed(mode, dtype):
    def model_of(shift):
        body = nn.Linear(5, 6)
        with torch.no_grad():
            body.weight[3:] = body.weight[:3]
            body.bias[:] = shift
        return nn.Sequential(body, nn.Linear(6, 3)).to(dtype)

    torch.manual_seed(0)
    model = model_of(0.5)
    x, y = arrays()
    batches = [(x.to(dtype), y)]
    clones = Clones([3], repeats=20, scope="all")
    tracker = Tracker(model, batches, mode=mode, metrics=["nc3"], clones=clones)
    if mode == "running":
        with tracker.batch(y):
            model(batches[0][0])
    scalars = tracker.measure(0)
    tracker.close()
    chunks = clones.grid(6, 0).chunks[3] % 3
    whole = sum(len(set(chunk.tolist())) == 3 for chunk in chunks)
    assert 0 < whole < 20
    h = model[0](batches[0][0]).detach()
    r2 = [
        reconstruct(Covariance.of(h), c).r_squared()
        for c in clones.grid(6, 0).chunks[3]
    ]
    assert scalars["clones/3/r_squared"] == pytest.approx(sum(r2) / 20, rel=1e-5)
    assert sum(value > 1 - 1e-5 for value in r2) == whole


def run(tracker, epochs, mode):
    for epoch in epochs:
        torch.manual_seed(epoch)
        generator = torch.Generator().manual_seed(epoch)
        hear = tracker.update if mode == "running" else lambda labels: None
        train(tracker.model, loader(generator=generator), hear)
        tracker.step(epoch)


@pytest.mark.parametrize("mode", ["evaluate", "running"])
@pytest.mark.parametrize("through", ["torch", "json"])
def test_a_resumed_run_goes_on_as_it_was(mode, through, tmp_path):
    def made(model):
        return Tracker(model, loader(), mode=mode, clones=[2, 4], seed=7)

    whole = made(network())
    run(whole, range(2), mode)
    state = whole.state_dict()
    if through == "torch":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    else:
        state = json.loads(json.dumps(state, default=torch.Tensor.tolist))
    model = network(seed=9)
    model.load_state_dict(whole.model.state_dict())
    resumed = made(model)
    resumed.load_state_dict(state)
    run(whole, range(2, 4), mode)
    run(resumed, range(2, 4), mode)
    assert list(resumed.history) == list(whole.history)


OTHERS = {
    "widths": {"clones": [2, 3]},
    "repeats": {"clones": Clones([2], repeats=3)},
    "scope": {"clones": Clones([2], scope="all")},
    "seed": {"clones": [2], "seed": 1},
    "none": {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_state_with_other_clones_is_refused(what):
    state = Tracker(network(), loader(), clones=[2]).state_dict()
    other = Tracker(network(), loader(), **OTHERS[what])
    with pytest.raises(StateError, match=r"its `clones` is \{'widths': \[2\]"):
        other.load_state_dict(state)


def test_a_state_from_before_clones_goes_on_without_them():
    tracker = Tracker(network(), loader(), metrics=["nc3"])
    tracker.measure(0)
    state = tracker.state_dict()
    del state["clones"]
    Tracker(network(), loader(), metrics=["nc3"]).load_state_dict(state)
    other = Tracker(network(), loader(), metrics=["nc3"], clones=[2])
    with pytest.raises(StateError, match="`clones` is None"):
        other.load_state_dict(state)


def test_all_loggers_get_the_names(tmp_path):
    said = []
    log = tmp_path / "run.csv"
    tracker = Tracker(
        network(), loader(), metrics=["nc3"], clones=[2],
        loggers=[log, lambda scalars, step: said.append(dict(scalars))],
    )  # fmt: skip
    scalars = tracker.measure(0)
    assert said == [scalars]
    assert {line.split(",")[2] for line in log.read_text().splitlines()[1:]} == set(
        scalars
    )
    assert "clones/2/r_squared" in scalars


@pytest.mark.parametrize("mode", ["evaluate", "running"])
def test_widths_beyond_the_layer_are_refused(mode):
    tracker = Tracker(network(), loader(), mode=mode, clones=[7])
    if mode == "running":
        train(tracker.model, loader(), tracker.update)
    with pytest.raises(ValueError, match="at most the 6 neurons"):
        tracker.measure(0)
    assert len(tracker.history) == 0
    tracker.close()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"clones": [0]}, "`size` must be an integer >= 1"),
        ({"clones": "all"}, "`widths` must be one of"),
        ({"clones": [2], "options": {"light": True}}, "light mode leaves out"),
    ],
)
def test_wrong_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        Tracker(network(), loader(), **arguments)


def test_another_head_is_another_layer():
    model = network()
    tracker = Tracker(model, loader(), clones=[2])
    tracker.measure(0)
    model[4], model[6] = nn.Linear(8, 9), nn.Linear(9, 3)
    with pytest.raises(ShapeError, match=r"the 6 neurons .* now reads 9"):
        tracker.measure(1)


def test_a_new_head_of_the_same_width_is_followed():
    model = network()
    tracker = Tracker(model, loader(), clones=Clones([2]))
    tracker.measure(0)
    model[6] = nn.Linear(6, 3)
    scalars = tracker.measure(1)
    expected = by_hand(model, *arrays(), Clones([2]), seed=0)
    assert {name: scalars[name] for name in expected} == pytest.approx(expected)


def test_the_whole_layer_is_the_network():
    tracker = Tracker(network(), loader(), clones=[6])
    with pytest.warns(UndefinedWarning) as caught:
        scalars = tracker.measure(0)
    for name, warning in zip(PARTS[:2], caught, strict=True):
        assert f"`{name}` of chunks of 6 neurons" in str(warning.message)
    assert math.isnan(scalars["clones/6/r_squared"])
    full = pytest.approx(scalars["clones/full_error"])
    assert scalars["clones/6/raw_error"] == scalars["clones/6/folded_error"] == full
    every = Tracker(network(), loader(), clones=Clones([6], scope="all")).measure(0)
    assert every["clones/6/r_squared"] == 1.0


def test_features_that_do_not_fit_leave_folding_out():
    tracker = Tracker(
        network(), loader(), metrics=[], clones=[1, 2], options={"cache_bytes": 100}
    )
    with pytest.warns(
        UndefinedWarning, match="do not fit into `cache_bytes`"
    ) as caught:
        scalars = tracker.measure(0)
    assert len(caught) == 1
    undefined = {name for name, value in scalars.items() if math.isnan(value)}
    assert undefined == {
        f"clones/{w}/folded_error{end}" for w in (1, 2) for end in ("", "_spread")
    }
    tracker.measure(1)  # says it no second time
    kept = Tracker(network(), loader(), metrics=[], clones=[1, 2]).measure(0)
    known = set(scalars) - undefined
    assert {n: scalars[n] for n in known} == pytest.approx({n: kept[n] for n in known})


def test_few_samples_are_told_once():
    tracker = Tracker(network(), loader(), metrics=["accuracy"], subset=6, clones=[3])
    with pytest.warns(UndefinedWarning, match="more samples than neurons; got 6 for 6"):
        tracker.measure(0)
    tracker.measure(1)


def test_constant_features_are_undefined_and_told_once():
    model = network()
    with torch.no_grad():
        model[4].weight.zero_()
    tracker = Tracker(model, loader(), metrics=["accuracy"], clones=[2, 3])
    with pytest.warns(UndefinedWarning) as caught:
        scalars = tracker.measure(0)
    assert len(caught) == 2
    assert math.isnan(scalars["clones/3/r_squared"])
    assert scalars["clones/3/raw_error"] == pytest.approx(2 / 3)
    tracker.measure(1)


def test_a_diverged_network_is_recorded_as_undefined():
    tracker = Tracker(network(), loader(), metrics=["nc3"], clones=[2])
    first = tracker.measure(0)
    with torch.no_grad():
        tracker.model[0].weight.fill_(torch.nan)
    with pytest.warns(UndefinedWarning, match="must be finite"):
        scalars = tracker.measure(1)
    assert list(scalars) == list(first)
    assert all(map(math.isnan, scalars.values()))


def test_held_out_data_are_no_part_of_it():
    x, y = arrays(n=30, seed=5)
    clones = Clones([2])
    tracker = Tracker(
        network(), loader(), metrics=[], eval_loader=[(x, y)], clones=clones
    )
    expected = by_hand(tracker.model, *arrays(), clones, seed=0)
    assert tracker.measure(0) == pytest.approx(expected, rel=1e-9)


def test_the_covariance_of_all_classes_together():
    g = torch.Generator().manual_seed(0)
    h = 1e6 + torch.randn(50, 4, generator=g).double()
    h[:, 2] = 0.1  # constant to the last bit
    y = torch.arange(50) % 3 + (torch.arange(50) > 30)  # class 4 has no samples
    found, expected = whole_covariance(ClassMoments.of(h, y, 5)), Covariance.of(h)
    assert int(found.count) == 50
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-15, atol=0)
    torch.testing.assert_close(found.scatter, expected.scatter, rtol=1e-9, atol=1e-7)
    assert not found.scatter[2].any()


def test_measure_finds_the_same_head_by_itself():
    tracker = Tracker(network(), loader(), head="6", clones=[2], metrics=["nc1"])
    expected = measure(tracker.model, loader(shuffle=False)).nc1()
    assert tracker.measure(0)["nc1"] == pytest.approx(expected, rel=1e-9)
