"""What widening put in, narrowing takes out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerpeel.edits.narrowing import narrow
from layerpeel.edits.width import CompatibleEmbedding, embed, widen
from tests.edits.narrowing.planted import close, elsewhere
from tests.edits.networks import Convolutional, Residual, convolutional, mlp, seeded

GROWTHS = st.lists(
    st.tuples(
        st.sampled_from(["split", "split", "null"]),
        st.integers(1, 3),
        st.floats(-2.0, 3.0).map(lambda a: round(a, 2)),
    ),
    min_size=1,
    max_size=3,
)


def widened(model, layer, growths, draw):
    """Split neurons that are drawn, copies too, or add null ones, time and again."""
    for kind, by, alpha in growths:
        width = len(model.get_submodule(layer).weight)
        neurons = [draw(st.integers(0, width - 1)) for _ in range(by)]
        neurons = neurons if kind == "split" else "auto"
        edit = widen(model, layer, by, neurons=neurons, alpha=alpha, kind=kind)
        model = edit.model
    return model


def check_back(model, wide, layer, x, atol):
    """Check that the wide network becomes the given one, up to order and rounding."""
    assert close(model, wide, x, atol)
    edit = narrow(wide, layer)
    before, after = model.get_submodule(layer), edit.model.get_submodule(layer)
    rows = {tuple(row) for row in before.weight.flatten(1).tolist()}
    assert {tuple(row) for row in after.weight.flatten(1).tolist()} == rows
    assert edit.proof.width_after == len(before.weight)
    assert close(model, edit.model, x, atol)
    assert list(edit.model.state_dict()) == list(model.state_dict())


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(), growths=GROWTHS, width=st.integers(1, 5),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_perceptrons(data, growths, width, activation, dtype):
    model = mlp([3, width, 2], activation).to(dtype)
    wide = widened(model, "0", growths, data.draw)
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    check_back(model, wide, "0", elsewhere(12, 3).to(dtype), atol)


@settings(max_examples=8, deadline=None)
@given(data=st.data(), growths=GROWTHS, layer=st.sampled_from(["conv1", "conv2"]))
def test_convolutional_networks(data, growths, layer):
    model = convolutional()
    wide = widened(model, layer, growths, data.draw)
    assert isinstance(wide, Convolutional)
    check_back(model, wide, layer, elsewhere(4, 2, 4, 4), 1e-12)


@settings(max_examples=8, deadline=None)
@given(data=st.data(), growths=GROWTHS, width=st.integers(2, 5))
def test_residual_networks(data, growths, width):
    model = seeded(lambda: Residual(width))
    wide = widened(model, "block2.fc1", growths, data.draw)
    check_back(model, wide, "block2.fc1", elsewhere(9, 4), 1e-12)


def test_split_networks_come_back_with_all_their_weights():
    model = mlp([3, 4, 4, 2], nn.Tanh)
    wide = model
    for layer in ("0", "2"):
        wide = widen(wide, layer, 3, neurons=[0, 2, 0], alpha=0.3).model
    for layer in ("0", "2"):
        wide = narrow(wide, layer).model
    for name, value in model.state_dict().items():
        torch.testing.assert_close(wide.state_dict()[name], value)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_threefold_networks_come_back_layer_by_layer(activation):
    model = mlp([2, 3, 4, 2], activation)
    wide = embed(model, CompatibleEmbedding.threefold((2, 3, 4, 2))).model
    assert [wide[0].out_features, wide[2].out_features] == [9, 12]
    # Copies read copies of their own: only once those are one do they read the same.
    assert narrow(wide, "2").proof.width_after == 12
    back = narrow(narrow(wide, "0").model, "2").model
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value)
