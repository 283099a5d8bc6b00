import json

import pytest
import torch
from torch import nn

from layerpeel.datasets import load_digits, stratified_split
from layerpeel.studies.layer_pruning import PruningSettings, layer_pruning

TINY = PruningSettings(
    depth=4, width=12, variance=0.08, epochs=12, more_epochs=2, learning_rate=4e-3
)


def test_a_small_network_is_pruned_and_decides_as_before():
    state = torch.get_rng_state()
    found = layer_pruning(TINY, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.hidden_before == 4
    assert found.hidden_after < 4
    linear = (found.linearity.minimal_correlation() > 0.99).sum()
    merges = found.edit.proof.merges
    assert 1 <= len(merges) == 4 - found.hidden_after <= int(linear) + 1
    assert found.accuracy_before > 0.5
    assert found.agreement_merged > 0.9
    assert found.accuracy_after > 0.5

    # The numbers are those of the networks that it returns.
    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    train, test = stratified_split(digits.labels, 0.25, generator)
    x = (digits.inputs - digits.inputs[train].mean(0)) * TINY.scale
    for model, share in (
        (found.edit.model, found.accuracy_merged),
        (found.retrained, found.accuracy_after),
    ):
        with torch.no_grad():
            right = model(x[test]).argmax(1) == digits.labels[test]
        assert float(right.double().mean()) == pytest.approx(share)
        assert sum(isinstance(m, nn.Tanh) for m in model) == found.hidden_after
    content = json.loads(json.dumps(found.to_dict()))
    assert content["hidden_after"] == found.hidden_after
    assert f"4 -> {found.hidden_after}" in found.summary()


def test_the_same_seed_gives_the_same_numbers():
    short = PruningSettings(depth=2, width=6, epochs=1, more_epochs=1)
    first, second = (layer_pruning(short, seed=3, progress=False) for _ in "ab")
    assert first.to_dict() == second.to_dict()
