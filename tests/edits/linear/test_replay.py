from __future__ import annotations

import torch
from torch import nn

from layerpeel.edits import merge_layers
from layerpeel.edits.data import Data
from layerpeel.edits.linear.linearity import looked_at
from layerpeel.edits.linear.merge_proof import MergeProof
from layerpeel.edits.linear.replay import with_features


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(5, 5), nn.ReLU(inplace=True))]
    return nn.Sequential(*layers, nn.Linear(5, 3)).double()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 5, generator=generator).double(), torch.arange(6) % 3)
        for _ in range(3)
    ]


def test_what_a_layer_read_is_found_from_what_was_kept() -> None:
    model, data = network(), batches()
    looked = looked_at(model, Data(data, model), keep=True, whole=False)
    places = [each.place for each in looked.found]
    found = with_features(model, looked.kept, places, "4")
    for each, (inputs, _) in zip(found, data, strict=True):
        assert each.features is not None
        assert torch.equal(each.features, model[:4](inputs))


def test_what_the_second_layer_read_is_not_known() -> None:
    model, data = network(), batches()
    looked = looked_at(model, Data(data, model), keep=True, whole=False)
    places = [each.place for each in looked.found]
    assert with_features(model, looked.kept, places, "2") == ()


def test_a_merged_model_whose_rest_is_run_returns_the_same() -> None:
    model, data = network(), batches()
    with torch.no_grad():
        torch.as_tensor(model[4].bias).add_(100)
    edit = merge_layers(model, data)
    assert isinstance(edit.proof, MergeProof)
    assert edit.proof.merges[0].path == "4"
    assert edit.proof.samples == 18
    inputs = torch.cat([x for x, _ in data])
    assert torch.allclose(edit.model(inputs), model(inputs))
