import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from layerpeel.edits.narrowing import narrow
from tests.edits.networks import (
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    normal,
    seeded,
)


def least_squares(features, outputs, kept):
    """The best affine map from some features to outputs: what no consumer can beat."""
    design = torch.cat([features[:, kept], torch.ones(len(features), 1)], 1)
    return design @ torch.linalg.lstsq(design, outputs).solution


def relative_change(old, new):
    return float((new - old).norm() / (old - old.mean(0)).norm())


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(2, 12), share=st.floats(0.1, 1.0), seed=st.integers(0, 999),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.Identity]),
)  # fmt: skip
def test_the_predicted_change_is_the_measured_one(width, share, seed, activation):
    model = mlp([4, width, 5], activation, seed)
    data = data_for(4, 3, samples=60, seed=seed, batches=3)
    target = max(1, round(share * width))
    edit = narrow(model, "0", data=data, method="clones", width=target)
    proof = edit.proof
    assert (proof.width_after, proof.bound_kind) == (target, "exact")
    x = torch.cat([x for x, _ in data])
    with torch.no_grad():
        old, new = model(x), edit.model(x)
        features = model[1](model[0](x))
    assert proof.relative_change == pytest.approx(relative_change(old, new), abs=1e-12)
    assert proof.bound == pytest.approx(proof.relative_change, rel=1e-6, abs=1e-7)
    best = least_squares(features, old, list(proof.kept))
    assert proof.relative_change == pytest.approx(
        relative_change(old, best), rel=1e-6, abs=1e-6
    )
    assert proof.output_change == pytest.approx(
        float((new - old).abs().max()), abs=1e-12
    )
    assert proof.agreement == float((old.argmax(1) == new.argmax(1)).double().mean())
    assert proof.exact == (target == width)


@settings(max_examples=8, deadline=None)
@given(tolerance=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_tolerances_hold_on_the_data(tolerance, seed):
    model = mlp([4, 12, 5], nn.Tanh, seed)
    data = data_for(4, 3, samples=80, seed=seed)
    edit = narrow(model, "0", data=data, method="clones", tolerance=tolerance)
    floor = math.sqrt(12 * torch.finfo(torch.float64).eps)
    assert edit.proof.relative_change <= max(tolerance, floor) * (1 + 1e-9)
    if edit.proof.width_after > 1:
        less = edit.proof.width_after - 1
        tighter = narrow(model, "0", data=data, method="clones", width=less)
        assert tighter.proof.relative_change > tolerance


def test_clones_of_each_other_leave_one():
    model = mlp([4, 9, 3], nn.Tanh)
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = getattr(model[0], name)
            values[3:6] = values[:3]
            values[6:] = -values[:3]
    data = data_for(4, 3, samples=50)
    edit = narrow(model, "0", data=data, method="clones", tolerance=0.0)
    assert edit.proof.width_after == 3
    assert edit.proof.output_change < 1e-12


@pytest.mark.parametrize(
    ("layer", "mode"), [("conv1", "zeros"), ("conv1", "circular"), ("conv2", "zeros")]
)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_bounds_hold_where_several_taps_or_places_are_read(layer, mode, width):
    model = convolutional(padding_mode=mode)
    data = images(20)
    edit = narrow(model, layer, data=data, method="clones", width=width)
    proof = edit.proof
    assert proof.bound_kind == "Minkowski"
    # All places and taps together, at most the sum of each.
    assert proof.relative_change <= proof.bound * (1 + 1e-9) + 1e-7
    x = data[0][0]
    reader = {"conv1": "conv2", "conv2": "fc"}[layer]
    seen = []
    for net in (model, edit.model):
        handle = net.get_submodule(reader).register_forward_hook(
            lambda *args: seen.append(args[2].detach())
        )
        net(x)
        handle.remove()
    old, new = (z.movedim(1, -1).flatten(0, -2) for z in seen)
    assert proof.relative_change == pytest.approx(relative_change(old, new), abs=1e-12)


@pytest.mark.parametrize("tolerance", [0.05, 0.5])
def test_tolerances_hold_for_channels(tolerance):
    model = convolutional()
    edit = narrow(model, "conv1", data=images(20), method="clones", tolerance=tolerance)
    assert edit.proof.relative_change <= tolerance


def test_a_pointwise_convolution_is_predicted_exactly_stride_or_not():
    for stride in (1, 2):
        model = seeded(
            lambda stride=stride: nn.Sequential(
                nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 1, stride=stride),
                nn.Flatten(), nn.LazyLinear(3),
            )
        )  # fmt: skip
        data = [(normal(9, 2, 7, 7), torch.arange(9) % 3)]
        model(data[0][0])
        edit = narrow(model, "0", data=data, method="clones", width=4)
        assert edit.proof.bound_kind == "exact"
        assert edit.proof.bound == pytest.approx(edit.proof.relative_change, rel=1e-6)


class Twice(nn.Module):
    """Two layers read the same features, one of them past batch normalisation."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.left, self.right = nn.Linear(8, 3), nn.Linear(8, 3, bias=False)

    def forward(self, x):
        h = F.relu(self.fc(x))
        return self.left(h) * self.right(self.norm(h))


def test_several_readers_count_together():
    model = seeded(Twice)
    model.norm.running_mean.copy_(normal(8))
    data = data_for(4, 3, samples=60)
    edit = narrow(model, "fc", data=data, method="clones", width=5)
    x = torch.cat([x for x, _ in data])

    def read(net):
        h = F.relu(net.fc(x))
        return torch.cat([net.left(h), net.right(net.norm(h))], 1)

    with torch.no_grad():
        expected = relative_change(read(model), read(edit.model))
    assert edit.proof.relative_change == pytest.approx(expected, rel=1e-9)
    assert edit.proof.bound == pytest.approx(expected, rel=1e-6)
    assert len(edit.model.norm.weight) == 5
    assert "was given one" in edit.proof.caveats[1]


def test_a_narrow_model_trains_saves_and_loads(tmp_path):
    model = seeded(lambda: Residual(6))
    data = data_for(4, 3, samples=30)
    edit = narrow(model, "block1.fc1", data=data, method="clones", width=3)
    small = edit.model
    assert (small.block1.fc1.out_features, small.block1.fc2.in_features) == (3, 3)
    assert list(small.state_dict()) == list(model.state_dict())
    path = tmp_path / "small.pt"
    torch.save(small.state_dict(), path)
    again = narrow(model, "block1.fc1", data=data, method="clones", width=3).model
    for value in again.parameters():
        value.data.zero_()
    again.load_state_dict(torch.load(path, weights_only=True))
    x, y = data[0]
    assert torch.equal(again(x), small(x))
    before = F.cross_entropy(small(x), y)
    before.backward()
    with torch.no_grad():
        for value in small.parameters():
            value -= 0.1 * value.grad
    assert F.cross_entropy(small(x), y) < before


def test_outputs_that_do_not_vary_have_no_relative_change():
    model = mlp([4, 6, 3])
    data = [(normal(1, 4), torch.tensor([0]))]
    edit = narrow(model, "0", data=data, method="clones", tolerance=0.0)
    assert edit.proof.width_after == 1
    assert edit.proof.relative_change == 0.0


def test_float32_networks_stay_so():
    model = mlp([4, 10, 3], nn.Tanh).float()
    data = [(x.float(), y) for x, y in data_for(4, 3, samples=60)]
    edit = narrow(model, "0", data=data, method="clones", width=6)
    assert all(p.dtype == torch.float32 for p in edit.model.parameters())
    assert edit.proof.bound == pytest.approx(edit.proof.relative_change, rel=1e-3)


def test_maps_keep_the_memory_format_that_views_need():
    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 1)
            self.last = nn.Linear(16, 2)

        def forward(self, x):
            h = torch.relu(self.second(torch.relu(self.first(x))))
            return self.last(h.view(x.size(0), -1))

    model = Viewed().double()
    data = [(normal(8, 2, 4, 4), torch.arange(8) % 2)]
    for width in (2, 3):
        assert narrow(
            model, "first", data=data, method="clones", width=width
        ).model.second.weight.stride()[1:] == (1, 1, 1)
