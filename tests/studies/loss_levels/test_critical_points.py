import json

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import nn

from layerpeel._checks import FileError
from layerpeel.landscape import Kind
from layerpeel.studies.loss_levels import Search, critical_points, rippled_steps
from layerpeel.studies.loss_levels import files as files_module
from layerpeel.studies.loss_levels.networks import network

X, Y = rippled_steps(20)
DATA = [(X, Y)]
MSE = nn.functional.mse_loss
QUICK = Search(iterations=120, looks=1)


def one_neuron(seed):
    return network((1, 1, 1), "tanh", 1.0, seed)


def by_least_squares(starts):
    """The losses that an independent solver ends at, with one neuron."""
    x, y = X[:, 0].numpy(), Y[:, 0].numpy()

    def residual(p):
        return p[2] * np.tanh(p[0] * x + p[1]) + p[3] - y

    generator = np.random.default_rng(0)
    ends = [
        least_squares(
            residual, generator.normal(size=4), xtol=1e-15, ftol=1e-15, gtol=1e-15
        )
        for _ in range(starts)
    ]
    return [2 * end.cost / len(x) for end in ends if np.abs(end.x).max() < 100]


def test_levels_of_one_neuron_are_those_of_another_solver():
    found = critical_points(one_neuron, MSE, DATA, seeds=range(2), search=QUICK)
    minima = sorted(v.loss for v in found if v.kind is Kind.LOCAL_MINIMUM)
    others = by_least_squares(8)
    assert minima
    for loss in minima:
        assert min(abs(other / loss - 1) for other in others) < 1e-9
    assert min(others) == pytest.approx(minima[0], rel=1e-9)
    for level in found:
        model = one_neuron(0)
        model.load_state_dict(level.state)
        loss = MSE(model(X), Y)
        loss.backward()
        assert loss.item() == pytest.approx(level.loss, rel=1e-14)
        assert max(float(p.grad.abs().max()) for p in model.parameters()) < 1e-10
        assert set(level.seeds) <= set(range(2))
    assert sum(level.count for level in found) == found.accepted
    assert found.accepted + sum(found.rejected.values()) == found.tried


def test_saddles_are_found_where_a_descent_passes_them():
    # Risk (a b - 1) ** 2: a saddle at 0, and minima of loss 0.
    def build(seed):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        nn.init.constant_(model[0].weight, 0.01)
        nn.init.constant_(model[1].weight, 0.012)
        return model

    ones = torch.ones(2, 1, dtype=torch.float64)
    search = Search(near=2.0, looks=3)
    found = critical_points(build, MSE, [(ones, ones)], seeds=[0], search=search)
    assert found[0].kind is Kind.STRICT_SADDLE
    assert found[0].loss == pytest.approx(1.0)
    assert found[0].inertia.signs == (1, 0, 1)
    assert found[-1].loss < 1e-20
    assert found.losses.tolist() == [level.loss for level in found]


@pytest.mark.parametrize(
    ("build", "search", "reason"),
    [
        # One step of the minimiser is not enough, and Newton does not converge there.
        (one_neuron, Search(iterations=1, looks=0, polish_steps=1), "NOT_CRITICAL"),
        (one_neuron, Search(iterations=120, looks=0, largest=0.5), "FAR"),
        ("dead", QUICK, "DEAD"),
        ("kinked", QUICK, "AT_KINK"),
    ],
)
def test_rejections_are_counted_by_reason(build, search, reason):
    def dead(seed):
        model = network((1, 1, 1), "relu", 1.0, 0)
        with torch.no_grad():
            model[0].bias.fill_(-50.0)
        return model

    def kinked(seed):
        model = network((1, 1, 1), "relu", 1.0, 0)
        with torch.no_grad():
            model[0].weight.zero_()
            model[0].bias.zero_()
        return model

    build = {"dead": dead, "kinked": kinked}.get(build, build)
    found = critical_points(build, MSE, DATA, seeds=[0], search=search)
    assert dict(found.rejected) == {reason: found.tried}
    assert len(found) == 0
    assert found.losses.shape == (0,)
    assert (
        found.summary()
        == f"0 levels of 0 critical points; {found.tried} tried, "
        + (f"rejected: {found.tried} {reason}")
    )


def constant(seed):
    return network((1, 0, 1), "tanh", 1.0, seed)


def test_a_killed_search_goes_on(tmp_path, monkeypatch):
    options = {"search": QUICK, "folder": tmp_path / "new"}
    searched, inner = [], files_module.search_from

    def counted(model, *rest):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(model)
        return inner(model, *rest)

    monkeypatch.setattr(files_module, "search_from", counted)
    with pytest.raises(KeyboardInterrupt):
        critical_points(constant, MSE, DATA, seeds=range(3), **options)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["seed-0.safetensors", "seed-1.safetensors"]
    searched.clear()
    found = critical_points(constant, MSE, DATA, seeds=range(3), **options)
    assert len(searched) == 1
    monkeypatch.undo()
    direct = critical_points(constant, MSE, DATA, seeds=range(3), search=QUICK)
    assert found.to_dict() == direct.to_dict()
    json.dumps(found.to_dict(), allow_nan=False)

    for changed in (
        {"build": lambda seed: network((1, 0, 1), "tanh", 2.0, seed)},
        {"data": [(X, 2 * Y)]},
        {"loss_fn": nn.functional.l1_loss},
        {"search": Search()},
    ):
        given = {
            "build": constant,
            "loss_fn": MSE,
            "data": DATA,
            **options,
            **changed,
        }
        with pytest.raises(FileError, match="must be of the same"):
            critical_points(seeds=[0], **given)
    (tmp_path / "new" / "seed-0.safetensors").write_bytes(b"none")
    with pytest.raises(FileError, match="Delete the file"):
        critical_points(constant, MSE, DATA, seeds=[0], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": []}, ValueError, "at least one; got none"),
        ({"seeds": [1, 1]}, ValueError, "distinct"),
        ({"seeds": [-1]}, ValueError, "a seed"),
        ({"gap": 0.0}, ValueError, "`gap` must be a share"),
    ],
)
def test_bad_input_is_named(options, error, message):
    with pytest.raises(error, match=message):
        critical_points(one_neuron, MSE, DATA, **options)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="`build` must return"):
        critical_points(lambda seed: None, MSE, DATA, seeds=[0])


@pytest.mark.parametrize("name", ["near", "gradient", "largest", "influence"])
def test_settings_of_a_search_are_checked(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number above 0"):
        Search(**{name: 0.0})
