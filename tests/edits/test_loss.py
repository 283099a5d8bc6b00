import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerpeel as lp
from layerpeel._checks import LossError, NonFiniteError
from layerpeel.edits.data import Data
from layerpeel.edits.loss import Loss, known_loss
from tests.edits.networks import data_for, gradient, mlp

LOSSES = {
    "mean": F.cross_entropy,
    "sum": lambda outputs, target: F.cross_entropy(outputs, target, reduction="sum"),
}


def uneven():
    x, y = (torch.cat(parts) for parts in zip(*data_for(3, 2, samples=12), strict=True))
    return [(x[:9], y[:9]), (x[9:], y[9:])]


@pytest.mark.parametrize("reduction", LOSSES)
def test_what_a_loss_does_over_samples_is_seen_and_gradients_follow(reduction):
    model, data = mlp([3, 4, 2]), uneven()
    loss = Loss.of(LOSSES[reduction], model, Data(data, model))
    assert loss.reduction == reduction
    edit = lp.deepen(model, "0", data, loss_fn=LOSSES[reduction])
    wanted = gradient(model, data, LOSSES[reduction]).norm()
    assert edit.proof.gradient_before == pytest.approx(float(wanted), rel=1e-10)


def test_losses_whose_batches_do_not_add_up_are_refused_unless_there_is_one():
    model = mlp([3, 4, 2])
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))
    with pytest.raises(LossError, match="pass all as one batch"):
        Loss.of(weighted, model, Data(uneven(), model))
    x, y = (torch.cat(parts) for parts in zip(*uneven(), strict=True))
    assert Loss.of(weighted, model, Data([(x, y)], model)).reduction == "mean"


def test_the_weights_are_looked_at_before_the_loss():
    model = mlp([3, 4, 2])
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"'0\.weight'"):
        known_loss(F.cross_entropy, model, Data(uneven(), model))
    assert known_loss(None, model, None) is None
