import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation

from layerpeel.measurement.layers.nonlinearity import (
    fits,
    may_be_nonlinear,
    overwrites,
)
from tests.measurement.layers.networks import Split, Swish

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.GELU(), nn.Hardswish(), nn.PReLU(), Swish(), NewGELUActivation()],
    ids=lambda m: type(m).__name__,
)
def test_elementwise_nonlinearities(module):
    output = module(X).detach()
    assert fits(module, X, output)
    # Elementwise: a change of one entry changes that entry of the output only.
    moved = X.clone()
    moved[1, 2] = 5.0
    changed = module(moved).detach() != output
    assert changed.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "module",
    [
        nn.Softmax(1),
        nn.GLU(),
        nn.Dropout(),
        nn.Identity(),
        nn.Linear(4, 4),
        nn.Flatten(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_others(module):
    assert not may_be_nonlinear(module)


def test_a_module_from_elsewhere_shows_it_by_its_shapes():
    split = Split()
    assert may_be_nonlinear(split)
    assert not fits(split, X, split(X))
    assert not fits(Swish(), None, X)
    assert not fits(Swish(), X.long(), X)


def test_who_may_work_in_place():
    assert overwrites(nn.ReLU(inplace=True))
    assert not overwrites(nn.ReLU())
    assert overwrites(Swish())
