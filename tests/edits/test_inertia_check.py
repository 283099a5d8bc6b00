import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits import deepen
from layerpeel.edits.inertia_check import MOST_PARAMETERS, inertia_shift
from tests.edits.networks import data_for, inertia, mlp, relu_minimum, set_vector


def difference(after, before):
    return tuple(b - a for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("residual", [False, True])
def test_what_was_predicted_at_a_minimum_is_what_is_computed(residual):
    model, data = relu_minimum()
    edit = deepen(
        model, "0", data, loss_fn=F.mse_loss, residual=residual, check_inertia=True
    )
    assert edit.proof.inertia_checked
    assert edit.proof.inertia_shift == (0, 6, 0)
    assert not any("not critical" in caveat for caveat in edit.proof.caveats)
    assert "(checked)" in edit.summary()
    assert not deepen(model, "0", data, loss_fn=F.mse_loss).proof.inertia_checked


def test_elsewhere_the_shift_is_that_of_the_hessians_with_a_caveat():
    model, data = mlp([2, 3, 2], nn.Tanh, 3), data_for(2, 2)
    edit = deepen(
        model, "0", data, loss_fn=F.cross_entropy, activation=nn.ReLU(),
        check_inertia=True,
    )  # fmt: skip
    own = [inertia(net, data, F.cross_entropy, 1e-12) for net in (edit.model, model)]
    assert edit.proof.inertia_shift == difference(*own)
    assert edit.proof.inertia_shift[0] > 0
    assert any("not critical" in caveat for caveat in edit.proof.caveats)


def test_smooth_lifts_can_be_counted_though_not_predicted():
    model, data = relu_minimum()
    edit = deepen(
        model, "0", data, loss_fn=F.mse_loss, activation=nn.Tanh(), check_inertia=True
    )
    assert edit.proof.inertia_checked
    assert sum(edit.proof.inertia_shift) == edit.proof.manifold_dimension


def test_frozen_parameters_have_no_part_in_it():
    model, data = relu_minimum()
    model[0].requires_grad_(False)
    edit = deepen(model, "0", data, loss_fn=F.mse_loss)
    assert edit.proof.inertia_shift == (0, 6, 0)
    assert inertia_shift(model, edit.model, F.mse_loss, data) == (0, 6, 0)
    model[2].requires_grad_(False)
    edit = deepen(model, "0", data, loss_fn=F.mse_loss)
    assert edit.proof.inertia_shift == (0, 0, 0)
    assert inertia_shift(model, edit.model, F.mse_loss, data) == (0, 0, 0)
    model[2].bias.requires_grad_(True)
    edit = deepen(model, "0", data, loss_fn=F.mse_loss)
    assert edit.proof.inertia_shift is None
    assert not edit.model[4].weight.requires_grad
    assert edit.model[4].bias.requires_grad


def test_sums_and_iterators_are_taken_as_elsewhere():
    model, data = relu_minimum()
    loss = nn.MSELoss(reduction="sum")
    edit = deepen(model, "0", iter(data), loss_fn=loss, check_inertia=True)
    assert edit.proof.inertia_shift == (0, 6, 0)


def test_what_cannot_be_counted_is_refused_with_a_way_out():
    model, data = relu_minimum()
    edit = deepen(model, "0", data, loss_fn=F.mse_loss, at="boundary")
    with pytest.raises(EditError, match="on a kink, first at 0_deeper_act"):
        inertia_shift(model, edit.model, F.mse_loss, data)
    single = [(x.float(), y.float()) for x, y in data]
    edit = deepen(mlp([1, 2, 1]).float(), "0", single, loss_fn=F.mse_loss)
    with pytest.raises(EditError, match="float64"):
        inertia_shift(mlp([1, 2, 1]), edit.model, F.mse_loss, data)
    wide = mlp([1, MOST_PARAMETERS, 1])
    with pytest.raises(EditError, match=f"up to {MOST_PARAMETERS}"):
        inertia_shift(wide, wide, F.mse_loss, data)


def test_eigenvalues_near_zero_have_no_sign():
    # One eigenvalue of 9e-14 beside one of two: above rounding, and not by enough.
    model = nn.Linear(2, 1, bias=False).double()
    set_vector(model, torch.ones(2, dtype=torch.float64))
    x = torch.diag(torch.tensor([2.0**0.5, 3e-7], dtype=torch.float64))
    data = [(x, x.sum(1, keepdim=True))]
    with pytest.raises(EditError, match="1 of 2 are between"):
        inertia_shift(model, model, F.mse_loss, data)
