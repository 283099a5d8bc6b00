import re

import pytest
from torch import nn

from layerpeel._checks import LayerError
from layerpeel.measurement.layers.choice import choose_layers, names_of
from tests.measurement.layers.networks import SharedReLU, Transformer, mlp, seeded


def test_all_are_leaves_with_parameters_and_nonlinearities():
    chosen = choose_layers(seeded(Transformer), "all")
    assert sorted(chosen.modules) == [
        "act", "attention.out_proj", "down", "head", "norm", "positions", "split", "up",
    ]  # fmt: skip
    assert list(choose_layers(seeded(mlp), "all").modules) == ["0", "1", "3", "4", "5"]


def test_paths_and_types():
    model = seeded(SharedReLU)
    assert list(choose_layers(model, ["relu", "conv1"]).modules) == ["relu", "conv1"]
    assert list(choose_layers(model, nn.Conv2d).modules) == ["conv1", "conv2"]
    assert list(choose_layers(model, (nn.ReLU, nn.Linear)).modules) == ["relu", "fc"]
    assert choose_layers(model, [""]).modules[""] is model


def test_names_are_all_paths():
    model = nn.Sequential(nn.Linear(1, 1))
    model.append(model[0])
    assert names_of(model, model[0]) == ["0", "1"]


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        (["fc1"], LayerError, "none at 'fc1'"),
        (["0", "33"], LayerError, r"'33' \(did you mean '3'\?\).*modules are '0', '1'"),
        (["0", "0"], LayerError, "'0' and '0' are the same"),
        (nn.Conv2d, LayerError, "no Conv2d, but Dropout, GELU, Linear"),
        ("1", ValueError, re.escape("Pass a list: `layers=['1']`")),
        ("al", ValueError, "Did you mean 'all'"),
        ([], ValueError, "at least one"),
    ],
)
def test_layers_that_are_not_there(layers, error, match):
    with pytest.raises(error, match=match):
        choose_layers(seeded(mlp), layers)


def test_a_model_without_layers_is_refused():
    with pytest.raises(LayerError, match="Flatten has none"):
        choose_layers(nn.Flatten(), "all")
