import pytest
import torch
from torch import nn

from layerpeel._checks import BatchError, NonFiniteError
from layerpeel.edits.data import Data

MODEL = nn.Linear(2, 2)


class Named(nn.Module):
    def forward(self, values, scale):
        return {"logits": values * scale}


def test_all_forms_of_batches_are_read_again_and_again():
    x, y = torch.ones(3, 2), [0, 1, 0]
    forms = [(x, y), [x, torch.tensor(y)], {"labels": y, "values": x, "scale": 2 * x}]
    data = Data(iter(forms), MODEL)
    for _ in range(2):
        batches = list(data)
        assert [batch.size for batch in batches] == [3, 3, 3]
        assert torch.equal(batches[2].run(Named()), 2 * x)


def test_floating_numbers_become_float64_and_labels_stay():
    (batch,) = Data([(torch.ones(2, 2), torch.tensor([0, 1]))], MODEL)
    double = batch.double()
    assert double.args[0].dtype == torch.float64
    assert double.target.dtype == torch.int64


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "at least one sample"),
        ([(torch.ones(0, 2), torch.ones(0))], "at least one sample"),
        ([(torch.ones(2), torch.ones(()))], "single target"),
        ([torch.ones(2)], "got a Tensor"),
        ([(1, 2, 3)], "3 items"),
        ([{"x": torch.ones(2)}], "'x'"),
    ],
)
def test_other_forms_are_refused(loader, message):
    with pytest.raises(BatchError, match=message):
        list(Data(loader, MODEL))


def test_inputs_are_finite():
    with pytest.raises(NonFiniteError, match="inputs"):
        list(Data([(torch.tensor([[torch.nan, 1.0]]), [0])], MODEL))


def test_models_return_a_tensor():
    (batch,) = Data([(torch.ones(2, 2), [0, 1])], MODEL)
    with pytest.raises(BatchError, match="must return a tensor"):
        batch.run(Return())


class Return(nn.Module):
    def forward(self, x):
        return "text"
