import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerpeel._checks import EditError
from layerpeel.edits.narrowing import narrow
from tests.edits.narrowing.planted import close, constant, elsewhere, incoming, plant
from tests.edits.networks import convolutional, data_for, images, mlp, normal


def bundled(seed=0, activation=nn.ReLU):
    """Twelve neurons in three bundles of nearly one direction each."""
    model = mlp([4, 12, 5], activation, seed)
    with torch.no_grad():
        for i in range(12):
            size = 0.5 + 0.25 * i
            model[0].weight[i] = size * (
                normal(4, seed=i % 3) + 0.02 * normal(4, seed=50 + i)
            )
            model[0].bias[i] = size * (0.3 * (i % 3) + 0.01 * (i % 4))
    return model


def brute_force(model, threshold):
    """The same reduction, by plain loops over neurons."""
    rows, second = incoming(model[0]), model[2].weight.detach()
    lengths, unit = rows.norm(dim=1), nn.functional.normalize(rows)
    left = sorted(range(len(rows)), key=lambda k: -second[:, k].norm() * lengths[k])
    groups = {}
    while left:
        j = left.pop(0)
        groups[j] = [j, *(k for k in left if unit[j] @ unit[k] >= threshold)]
        left = [k for k in left if k not in groups[j]]
    columns = {
        j: sum(second[:, k] * lengths[k] / lengths[j] for k in group)
        for j, group in groups.items()
    }
    return {j: sorted(g) for j, g in groups.items()}, columns


@settings(max_examples=12, deadline=None)
@given(threshold=st.floats(-1.0, 1.0), seed=st.integers(0, 999))
def test_groups_and_weights_are_those_of_plain_loops(threshold, seed):
    model = mlp([3, 9, 4], nn.ReLU, seed)
    edit = narrow(model, "0", method="cosine", cosine=threshold)
    groups, columns = brute_force(model, threshold)
    assert edit.proof.kept == tuple(sorted(groups))
    for i, (j, group) in enumerate(
        zip(edit.proof.kept, edit.proof.groups, strict=True)
    ):
        assert sorted(group) == groups[j]
        assert group[0] == j
        torch.testing.assert_close(edit.model[2].weight[:, i].detach(), columns[j])
        assert torch.equal(edit.model[0].weight[i], model[0].weight[j])


def test_bundles_leave_one_neuron_each():
    model = bundled()
    edit = narrow(model, "0", method="cosine", cosine=0.99)
    assert edit.proof.width_after == 3
    assert edit.proof.threshold == 0.99
    assert not edit.proof.exact
    assert edit.proof.relative_change is None


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Identity])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_no_input_moves_outputs_beyond_the_bound(activation, threshold):
    model = bundled(activation=activation)
    edit = narrow(model, "0", method="cosine", cosine=threshold)
    x = elsewhere(2000, 4)
    with torch.no_grad():
        change = (edit.model(x) - model(x)).norm(dim=1)
    length = torch.cat([x, torch.ones(2000, 1)], 1).norm(dim=1)
    share = float((change / length).max()) / edit.proof.bound_per_input
    assert share <= 1
    assert share > 0.02  # and it is no idle one


def test_the_bound_knows_steep_slopes():
    model = bundled(activation=lambda: nn.LeakyReLU(5.0))
    steep = narrow(model, "0", method="cosine").proof.bound_per_input
    flat = narrow(bundled(), "0", method="cosine").proof.bound_per_input
    assert steep == pytest.approx(5 * flat)


@pytest.mark.parametrize("width", [12, 11, 7, 3, 2, 1])
def test_the_threshold_falls_until_the_width_fits(width):
    data = data_for(4, 3, samples=60)
    edit = narrow(bundled(), "0", data=data, method="cosine", width=width)
    assert edit.proof.width_after == width
    if width > 1:
        wider = narrow(bundled(), "0", data=data, method="cosine", width=width - 1)
        assert wider.proof.threshold <= edit.proof.threshold


@settings(max_examples=6, deadline=None)
@given(tolerance=st.floats(1e-3, 1.0), seed=st.integers(0, 99))
def test_tolerances_hold_on_the_data(tolerance, seed):
    model = bundled(seed)
    data = data_for(4, 3, samples=60, seed=seed)
    edit = narrow(model, "0", data=data, method="cosine", tolerance=tolerance)
    proof = edit.proof
    assert proof.relative_change <= tolerance
    assert proof.bound == pytest.approx(proof.relative_change, rel=1e-6, abs=1e-9)


def test_a_tolerance_of_zero_merges_multiples_only():
    model = mlp([4, 6, 5])
    plant(model[0], 5, 1, 3.0)
    data = data_for(4, 3, samples=60)
    edit = narrow(model, "0", data=data, method="cosine", tolerance=0.0)
    assert edit.proof.width_after == 5
    assert close(model, edit.model, elsewhere(20, 4), 1e-7)


def test_neurons_that_are_always_zero_go():
    model = mlp([4, 5, 3])
    constant(model[0], 2, 0.0)
    edit = narrow(model, "0", method="cosine", cosine=1.0)
    assert edit.proof.gone == (2,)
    assert close(model, edit.model, elsewhere(20, 4))


def test_channels_with_batch_normalisation():
    model = convolutional()
    data = images(20)
    edit = narrow(model, "conv1", data=data, method="cosine", width=2)
    proof = edit.proof
    assert proof.width_after == 2
    assert 0 < proof.relative_change <= proof.bound
    assert proof.bound_kind == "Minkowski"
    assert math.isfinite(proof.bound_per_input)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.ELU])
def test_other_activations_do_not_scale(activation):
    with pytest.raises(EditError, match=r"positively homogeneous.*clones"):
        narrow(mlp([4, 6, 3], activation), "0", method="cosine")


def test_slopes_that_differ_keep_neurons_apart():
    model = mlp([4, 6, 3], lambda: nn.PReLU(6))
    with torch.no_grad():
        model[1].weight[:2] = 0.7
    edit = narrow(model, "0", method="cosine", width=2)
    assert edit.proof.width_after == 2
    with pytest.raises(EditError, match="6 neurons to 2 at the least"):
        narrow(model, "0", method="cosine", width=1)
