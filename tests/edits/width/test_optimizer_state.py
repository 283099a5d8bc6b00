import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits.width import widen
from layerpeel.edits.width.optimizer_state import check_optimizer
from tests.edits.networks import convolutional, data_for, images, mlp, normal, outputs

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-300),
    "amsgrad": lambda p: torch.optim.AdamW(
        p, lr=1e-3, eps=1e-300, amsgrad=True, weight_decay=0.0
    ),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3, eps=1e-300),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3, eps=1e-300),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, eps=1e-300, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, eps=1e-300),
}


def step(model, optimizer, data):
    optimizer.zero_grad()
    F.cross_entropy(model(data[0][0]), data[0][1]).backward()
    optimizer.step()


def trained(build, name, data, steps=4):
    model = build()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(steps):
        step(model, optimizer, data)
    return model, optimizer


def moments(optimizer):
    """The state tensors of each parameter, in the order of the parameters."""
    return [
        {k: v for k, v in optimizer.state[p].items() if torch.is_tensor(v) and v.ndim}
        for group in optimizer.param_groups
        for p in group["params"]
    ]


# What all optimizers accumulate is made of gradients, so a state carried over must be the
# one that a wide model would have left, had it been wide and its weights the same always:
# that is so for one step, after which only copies move in another way.
@pytest.mark.parametrize("alpha", [0.5, -0.7, 1.6])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_that_of_a_model_that_had_been_wide(name, alpha):
    data = data_for(3, 2, batches=1)
    model = mlp([3, 4, 2], nn.Tanh)
    start = widen(model, "0", 2, neurons=[1, 1], alpha=alpha).model
    wide_optimizer = OPTIMIZERS[name](start.parameters())
    optimizer = OPTIMIZERS[name](model.parameters())
    weights = copy.deepcopy(model.state_dict())
    step(start, wide_optimizer, data)
    step(model, optimizer, data)
    model.load_state_dict(weights)
    edit = widen(model, "0", 2, neurons=[1, 1], alpha=alpha, optimizer=optimizer)
    for mine, wanted in zip(
        moments(edit.optimizer), moments(wide_optimizer), strict=True
    ):
        assert mine.keys() == wanted.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], wanted[key], rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_equal_copies_train_like_a_neuron_with_other_step_sizes(kind):
    data = data_for(3, 2, batches=1)
    model, optimizer = trained(
        lambda: mlp([3, 4, 2], nn.Tanh), {"sgd": "momentum"}.get(kind, kind), data
    )
    edit = widen(model, "0", 1, neurons=[2], alpha=0.5, optimizer=optimizer)
    # Each copy has half of the gradient of the incoming weights, and all of that of the
    # outgoing ones: with plain steps the neuron moves half as far in what goes in and
    # twice as far in what comes out. Adam undoes the half.
    into = 0.5 if kind == "sgd" else 1.0
    for _ in range(4):
        before = [p.detach().clone() for p in model.parameters()]
        step(model, optimizer, data)
        with torch.no_grad():
            for p, old in zip(model.parameters(), before, strict=True):
                moved = p - old
                if p.shape[0] == 4:
                    moved[2] *= into
                elif p.ndim == 2:
                    moved[:, 2] *= 2
                p.copy_(old + moved)
        step(edit.model, edit.optimizer, data)
        change = (outputs(edit.model, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12
    assert torch.equal(edit.model[0].weight[2], edit.model[0].weight[4])


@pytest.mark.parametrize("kind", ["split", "null"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_wide_model_trains_on_and_its_state_saves_and_loads(name, kind):
    model, optimizer = trained(convolutional, name, images())
    model.eval()
    kept = copy.deepcopy(optimizer.state_dict())
    edit = widen(model, "conv1", 3, kind=kind, optimizer=optimizer)
    for key, value in moments(edit.optimizer)[0].items():
        assert value.shape == edit.model.conv1.weight.shape
        if kind == "null":
            assert (value[4:] == 0).all(), key
    again = OPTIMIZERS[name](edit.model.parameters())
    again.load_state_dict(edit.optimizer.state_dict())
    step(edit.model, again, images())
    assert type(edit.optimizer) is type(optimizer)
    for a, b in zip(
        kept["state"].values(), optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_groups_and_options_stay():
    model = mlp([3, 4, 2])
    groups = [
        {"params": [model[2].weight], "lr": 0.3, "name": "head"},
        {"params": [model[0].weight, model[0].bias], "weight_decay": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    step(model, optimizer, data_for(3, 2))
    edit = widen(model, "0", 1, optimizer=optimizer)
    wide = edit.optimizer.param_groups
    assert [g["lr"] for g in wide] == [0.3, 0.1]
    assert [g["weight_decay"] for g in wide] == [0, 0.1]
    assert [g.get("name") for g in wide] == ["head", None]
    assert wide[0]["params"] == [edit.model[2].weight]
    assert wide[1]["params"] == [edit.model[0].weight, edit.model[0].bias]
    assert edit.optimizer.defaults == optimizer.defaults
    assert [g["params"][0] is model[2].weight for g in optimizer.param_groups] == [
        True,
        False,
    ]


def test_state_of_another_kind_is_named():
    model, data = mlp([3, 4, 2]), data_for(3, 2)
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[0][0]), data[0][1])
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(EditError, match=r"of '0\.weight' is not"):
        widen(model, "0", 1, optimizer=optimizer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer, data)
    optimizer.state[model[0].weight]["curvature"] = normal(4, 3)
    with pytest.raises(EditError, match=r"'curvature' of '0\.weight'"):
        widen(model, "0", 1, optimizer=optimizer)
    # What does not change its shape may hold anything.
    del optimizer.state[model[0].weight]["curvature"]
    optimizer.state[model[2].bias]["curvature"] = normal(2)
    state = widen(model, "0", 1, optimizer=optimizer).optimizer.state_dict()["state"]
    assert "curvature" in state[3]


def test_optimizers_of_others_are_refused():
    model, other = mlp([3, 4, 2]), mlp([3, 4, 2])
    with pytest.raises(ValueError, match="4 of its 4 parameters"):
        widen(model, "0", 1, optimizer=torch.optim.Adam(other.parameters()))
    with pytest.raises(TypeError, match="got a dict"):
        check_optimizer({}, model)


@pytest.mark.parametrize("layer", ["0", "2"])
def test_state_of_all_parameters_together_is_refused(layer):
    model, data = mlp([3, 4, 4, 2], nn.Tanh), data_for(3, 2, batches=1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(model(data[0][0]), data[0][1])
        value.backward()
        return value

    optimizer.step(loss)
    with pytest.raises(EditError, match="Make the optimizer anew"):
        widen(model, layer, 1, optimizer=optimizer)
