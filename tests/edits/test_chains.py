"""Edits of all kinds, one after the other: what a user does over a project's life."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerpeel as lp
from layerpeel._checks import EditError, LayerError
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    outputs,
    seeded,
)

NETWORKS = {
    "perceptron": (lambda: mlp([4, 6, 5, 3]), lambda: data_for(4, 3)),
    "functional": (lambda: seeded(Functional), lambda: data_for(4, 3)),
    "residual": (lambda: seeded(Residual), lambda: data_for(4, 3)),
    "convolutional": (convolutional, images),
}


def deepened(model, path, data, draw):
    return lp.deepen(model, path, data, activation=nn.ReLU())


def with_block(model, path, data, draw):
    return lp.deepen(model, path, data, residual=True, activation=nn.ReLU())


def moved(model, path, data, draw):
    edit = lp.deepen(model, path, data, activation=nn.ReLU())
    generator = torch.Generator().manual_seed(draw.randint(0, 9))
    return lp.lifted_manifold(edit, data, generator=generator)[0]


def split(model, path, data, draw):
    alpha = draw.choice(["auto", -0.5, 0.25, 1.5])
    return lp.widen(model, path, draw.randint(1, 3), alpha=alpha)


def nulled(model, path, data, draw):
    return lp.widen(model, path, draw.randint(1, 2), kind="null", alpha=0.0)


def narrowed(model, path, data, draw):
    return lp.narrow(model, path)


def merged(model, path, data, draw):
    return lp.merge_layers(model, data)


EDITS = (deepened, with_block, moved, split, nulled, narrowed, merged)


def affine_paths(model):
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


def edited(model, data, draw):
    """Apply one random edit at a random place that takes it."""
    edit = draw.choice(EDITS)
    paths = affine_paths(model)
    for path in draw.sample(paths, len(paths)):
        try:
            return edit(model, path, data, draw), edit.__name__
        except (EditError, LayerError):
            continue
    raise AssertionError(f"no layer takes {edit.__name__}")


def converted(data, dtype):
    return [(x.to(dtype), y) for x, y in data]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NETWORKS)
def test_five_random_edits_keep_outputs_and_the_result_trains_saves_and_loads(
    name, dtype, tmp_path
):
    build, loader = NETWORKS[name]
    draw = random.Random(f"{name} {dtype}")
    model, data = build().to(dtype), converted(loader(), dtype)
    wanted, current, done = outputs(model, data), model, []
    while len(done) < 5:
        edit, how = edited(current, data, draw)
        assert edit.proof.exact
        current = edit.model
        done.append(how)
    allowed = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    change = (outputs(current, data) - wanted).abs().max()
    assert change <= allowed * max(1, wanted.abs().max()), done

    path = tmp_path / "weights.pt"
    torch.save(current.state_dict(), path)
    again = copy.deepcopy(current)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(outputs(again, data), outputs(current, data))

    x, y = data[0]
    before = F.cross_entropy(again(x), y)
    before.backward()
    with torch.no_grad():
        for parameter in again.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
    assert F.cross_entropy(again(x), y) < before
