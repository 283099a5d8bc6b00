import pytest
import torch
from torch import nn

from layerpeel._checks import EditError
from layerpeel.edits.width.certificate import NeuronCertificate, direction


def certificate(**options):
    given = {
        "kind": "split",
        "neuron": 0,
        "alpha": 0.25,
        "curvature": -1.0,
        "rounding": 0.1,
        "moves": {"0.weight": torch.tensor([[4.0, 8.0]])},
        "reads": {"1.weight": torch.tensor([[1.0, 2.0]])},
    }
    return NeuronCertificate(**{**given, **options})


def test_neurons_go_apart_in_their_blocks_of_columns():
    wide = nn.Sequential(nn.Linear(2, 3), nn.Linear(6, 1)).double()
    found = direction(certificate(), wide, 1, 2)
    assert found["0.weight"].tolist() == [[0, 0], [1, 2], [-3, -6]]
    assert found["1.weight"].tolist() == [[0, 0, 1, 2, -1, -2]]
    assert found["0.weight"].dtype == torch.float64
    assert not found["0.weight"].requires_grad


def test_null_neurons_move_alone_with_the_next_bias():
    wide = nn.Sequential(nn.Linear(2, 3), nn.Linear(6, 1))
    moved = {"1.bias": torch.tensor([5.0])}
    null = certificate(kind="null", neuron=None, alpha=None, bias=0.0, bias_moves=moved)
    found = direction(null, wide, None, 2)
    assert found["0.weight"].tolist() == [[0, 0], [0, 0], [4, 8]]
    assert found["1.weight"].tolist() == [[0, 0, 0, 0, 1, 2]]
    assert found["1.bias"].tolist() == [5]


def test_negative_means_beyond_rounding():
    assert certificate().is_negative
    assert not certificate(rounding=1.0).is_negative
    assert not certificate(rounding=float("inf")).is_negative
    assert not certificate(curvature=float("nan")).is_negative


def test_other_networks_are_refused():
    with pytest.raises(EditError, match="has 2, and 2"):
        direction(certificate(), nn.Sequential(nn.Linear(2, 2), nn.Linear(4, 1)), 0, 2)
    with pytest.raises(EditError, match=r"no parameter '0\.weight'"):
        direction(certificate(), nn.Linear(2, 2), 0, 1)
    with pytest.raises(EditError, match="`old`"):
        direction(certificate(), nn.Linear(2, 2), None, 1)
