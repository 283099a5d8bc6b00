import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import NonFiniteError
from layerpeel.edits import merge_layers, narrow
from layerpeel.edits.comparison import compare
from layerpeel.edits.data import Data
from layerpeel.edits.recording import Keeper, Recorder
from tests.edits.networks import data_for, mlp


def recorded(model, data, paths, source=None):
    keeper = Keeper()
    with Recorder(model, paths, source) as recorder:
        for batch in data:
            keeper.add(recorder.run(batch))
    return keeper.kept


def pair():
    model, other = mlp([3, 4, 4, 2]), mlp([3, 4, 4, 2])
    other[2].weight.data *= 1.25
    return model, other, Data(data_for(3, 2, samples=13, batches=4), model)


@pytest.mark.parametrize("source", [None, "2"])
@pytest.mark.parametrize("keep", [False, True])
def test_what_was_kept_is_compared_as_what_is_run_again(keep, source):
    model, other, data = pair()
    kept = recorded(model, data, ["2"], source) if keep else ()
    found = compare(model, other, data, ["2"], kept=kept, source=source)
    x = torch.cat([batch.args[0] for batch in data])
    with torch.no_grad():
        old, new = model(x), other(x)
        inner, moved = model[:3](x), other[:3](x)
    assert found.change.largest == pytest.approx(float((new - old).abs().max()))
    assert found.change.samples == 13
    same = (new.argmax(1) == old.argmax(1)).double().mean()
    assert found.agreement == pytest.approx(float(same))
    change = (moved - inner).norm()
    assert found.moved["2"].of_size == pytest.approx(float(change / inner.norm()))
    spread = (inner - inner.mean(0)).norm()
    assert found.of_spread == pytest.approx(float(change / spread))


@pytest.mark.parametrize("edit", [narrow, merge_layers])
def test_outputs_that_overflow_are_named(edit):
    model, data = mlp([3, 4, 2]).float(), [(torch.ones(5, 3), torch.zeros(5).long())]
    model[0].weight.data = 1e25 * model[0].weight.data.abs()
    model[2].weight.data *= 1e25
    with pytest.raises(NonFiniteError, match="finite"):
        edit(model, **({"layer": "0"} if edit is narrow else {}), data=data)


def test_flags_are_put_back_where_a_comparison_fails():
    model, _, data = pair()
    broken = nn.Sequential(nn.Linear(7, 2)).double()
    model.train()
    broken.train()
    with pytest.raises(ValueError, match="must run on the batches"):
        compare(model, broken, data)
    assert model.training
    assert broken.training
    assert model[0].training


class Named(nn.Module):
    """Calls its layers with arguments by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(input=F.relu(self.first(input=x)))


def test_arguments_by_name_are_seen():
    model, data = Named().double(), data_for(3, 2)
    edit = narrow(model, "first", data=data, method="clones", width=3)
    assert edit.proof.relative_change == pytest.approx(edit.proof.bound)
