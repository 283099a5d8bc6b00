import copy
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import (
    BatchError,
    EditError,
    LayerError,
    LossError,
    NonFiniteError,
)
from layerpeel.edits import deepen, lifted_manifold
from layerpeel.edits.linear import merge_layers
from tests.edits.linear.cases import (
    lifted,
    nearly_linear_tanh,
    normal_loader,
)
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    data_for,
    gradient,
    images,
    inertia,
    mlp,
    normal,
    outputs,
    polished,
    relu_minimum,
    seeded,
)

ALL = [
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.PReLU),
    *(nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus),
    *(nn.Softshrink, nn.Hardshrink),
]


def change(edit, model, data):
    return float((outputs(edit.model, data) - outputs(model, data)).abs().max())


@st.composite
def networks(draw):
    depth = draw(st.integers(2, 4))
    widths = draw(st.lists(st.integers(1, 7), min_size=depth + 1, max_size=depth + 1))
    return widths, draw(st.integers(0, depth - 2)), draw(st.integers(0, 2**16))


@pytest.mark.parametrize("activation", ALL)
@settings(max_examples=2, deadline=None)
@given(networks())
def test_merging_what_was_inserted_gives_the_old_network_back(activation, drawn):
    widths, layer, seed = drawn
    model = mlp(widths, nn.Tanh, seed)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model = model.to(dtype)
        data = [(x.to(dtype), y) for x, y in data_for(widths[0], widths[-1], seed=seed)]
        deeper = deepen(model, str(2 * layer), data, activation=activation())
        edit = merge_layers(deeper.model, data)
        assert change(edit, model, data) <= allowed
        assert change(edit, deeper.model, data) <= allowed
        assert edit.proof.exact
        assert edit.proof.everywhere == (activation is nn.Identity)
        assert [(m.path, m.reader) for m in edit.proof.merges] == [
            (deeper.lifts[0].path, deeper.lifts[0].reader)
        ]
        assert list(edit.model.state_dict()) == list(model.state_dict())
        scale = 1e-12 if dtype == torch.float64 else 1e-4
        for name, value in model.state_dict().items():
            torch.testing.assert_close(
                edit.model.state_dict()[name], value, rtol=scale, atol=scale
            )


def test_points_of_the_lifted_manifold_are_merged_to_the_same_network():
    model, data = relu_minimum()
    lift = deepen(model, ["0", "0"], data, width=4)
    points = lifted_manifold(
        lift, data, generator=torch.Generator().manual_seed(1), count=3
    )
    for point in (lift, *points):
        # The network's own layer is not linear on the data, and stays.
        edit = merge_layers(point.model, data, loss_fn=F.mse_loss)
        assert len(edit.proof.merges) == 2
        assert [path for path, _ in edit.proof.kept] == ["0"]
        for name, value in model.state_dict().items():
            torch.testing.assert_close(
                edit.model.state_dict()[name], value, rtol=0, atol=1e-9
            )
        assert edit.proof.gradient_after <= 1e-9


def test_the_inertia_loses_the_zeros_that_were_inserted():
    model, data = relu_minimum()
    deeper = deepen(model, "0", data, width=3).model
    edit = merge_layers(deeper, data, loss_fn=F.mse_loss)
    removed = sum(p.numel() for p in deeper.parameters()) - 7
    assert edit.proof.parameters_removed == removed == 10
    assert edit.proof.inertia_shift == (0, -removed, 0)
    assert edit.proof.regular
    assert not edit.proof.inertia_checked
    before, after = inertia(deeper, data), inertia(edit.model, data)
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (0, -removed, 0)
    checked = merge_layers(deeper, data, loss_fn=F.mse_loss, check_inertia=True)
    assert checked.proof.inertia_checked
    assert checked.proof.inertia_shift == (0, -removed, 0)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Hardshrink])
def test_the_merged_layer_is_the_product_of_both(activation):
    model = lifted(mlp([3, 5, 4, 2], activation))
    data = normal_loader(3)
    edit = merge_layers(model, data, layers=["0"])
    assert list(edit.model.state_dict()) == [
        *("2.weight", "2.bias", "4.weight", "4.bias")
    ]
    first, second = model[0], model[2]
    weight = second.weight @ first.weight
    bias = second.weight @ first.bias + second.bias
    torch.testing.assert_close(edit.model[0].weight, weight, rtol=0, atol=1e-13)
    torch.testing.assert_close(edit.model[0].bias, bias, rtol=0, atol=1e-12)
    (merge,) = edit.proof.merges
    with torch.no_grad():
        least = float(first(torch.cat([x for x, _ in data])).min())
    cut = 0.5 if activation is nn.Hardshrink else 0.0
    assert merge.margin == pytest.approx(least - cut)
    assert merge.measured <= 1e-12


def test_neurons_that_are_off_vanish():
    model, data = mlp([3, 6, 2], nn.ReLU), normal_loader(3)
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([50.0, 50, 50, -50, -50, -50]))
    edit = merge_layers(model, data)
    weight = model[2].weight[:, :3] @ model[0].weight[:3]
    torch.testing.assert_close(edit.model[0].weight, weight, rtol=0, atol=1e-13)
    assert change(edit, model, data) <= 1e-12
    # Three neurons are left between three inputs and two outputs.
    assert edit.proof.regular


def test_layers_without_activations_are_merged_for_every_input():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(3, 7), nn.Identity(), nn.Linear(7, 2))
    )
    edit = merge_layers(model, normal_loader(3))
    assert edit.proof.everywhere
    assert edit.proof.exact
    far = [(1e3 * normal(9, 3, seed=8), torch.zeros(9))]
    assert change(edit, model, far) <= 1e-9
    assert "for every input" in edit.summary()


def twin_minimum():
    """A 1-3-2 tanh network at a critical point, whose first and last neuron are one."""
    x = torch.linspace(-2, 2, 16, dtype=torch.float64)[:, None]
    small = mlp([1, 2, 2], nn.Tanh)
    with torch.no_grad():
        small[0].weight *= 2
        small[2].weight *= 2
    data = [(x, outputs(small, [(x, x)]) + 0.1 * normal(16, 2))]
    small = polished(small, data, steps=40)
    twin = mlp([1, 3, 2], nn.Tanh)
    with torch.no_grad():
        twin[0].weight.copy_(small[0].weight[[0, 1, 0]])
        twin[0].bias.copy_(small[0].bias[[0, 1, 0]])
        shares = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
        twin[2].weight.copy_(small[2].weight[:, [0, 1, 0]] * shares)
        twin[2].bias.copy_(small[2].bias)
    return twin, data


def test_the_identity_keeps_criticality_where_agreeing_on_the_data_does_not():
    twin, data = twin_minimum()
    deeper = deepen(twin, "0", data, width=4, activation=nn.ReLU())
    assert gradient(twin, data, F.mse_loss).abs().sum() <= 1e-10
    assert gradient(deeper.model, data, F.mse_loss).abs().sum() <= 1e-9
    edit = merge_layers(deeper.model, data, loss_fn=F.mse_loss)
    torch.testing.assert_close(edit.model[2].weight, twin[2].weight, rtol=0, atol=1e-12)
    assert edit.proof.regular
    assert gradient(edit.model, data, F.mse_loss).abs().sum() <= 1e-9
    assert edit.proof.gradient_after <= 1e-9
    # Other weights than the product, that give the same on the span of the data.
    spanned = copy.deepcopy(edit.model)
    a = twin[2].weight.data[:, 0]
    across = torch.stack([-a[1], a[0]]) / a.norm()
    with torch.no_grad():
        spanned[2].weight[:, 0] += across
        spanned[2].weight[:, 2] -= across
    assert change_of(spanned, deeper.model, data) <= 1e-12
    assert gradient(spanned, data, F.mse_loss).abs().sum() > 1e-3


def change_of(first, second, data):
    return float((outputs(first, data) - outputs(second, data)).abs().max())


def shifted(model, names, shift=60.0):
    with torch.no_grad():
        for name in names:
            model.get_submodule(name).bias += shift
    return model


def bottleneck():
    """Convolutions that can be merged: pointwise ones, and one that does not pad."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        *(nn.Dropout(0.2), nn.BatchNorm2d(3), nn.Conv2d(3, 3, (1, 2), bias=False)),
        *(nn.Flatten(), nn.Linear(36, 3)),
    )


class NormedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fc1, self.fc2 = (
            *(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 5)),
        )
        self.norm, self.act = nn.BatchNorm1d(6), nn.ReLU()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        h = self.act(self.stem(x))
        return self.head(self.act(h + self.fc2(self.act(self.norm(self.fc1(h))))))


def with_statistics(model):
    for i, module in enumerate(model.modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            size = module.num_features
            module.running_mean.copy_(0.3 * normal(size, seed=i))
            module.running_var.copy_(normal(size, seed=i).square() + 0.5)
            module.weight.data = 0.3 + normal(size, seed=i + 5).abs()
            module.bias.data = normal(size, seed=i + 9)
    return model


STYLES = [
    (lambda: shifted(seeded(Functional), ["fc1"]), ["fc1"], data_for(4, 3)),
    (
        lambda: shifted(seeded(Functional), ["fc1", "fc3"]),
        ["fc1", "fc3"],
        data_for(4, 3),
    ),
    (
        lambda: shifted(seeded(Functional), ["fc1", "fc2", "fc3"], 400.0),
        ["fc1", "fc2", "fc3"],
        data_for(4, 3),
    ),
    (
        lambda: shifted(seeded(Residual), ["block1.fc1", "block2.fc1"]),
        ["block1.fc1", "block2.fc1"],
        data_for(4, 3),
    ),
    (
        lambda: shifted(with_statistics(seeded(NormedResidual)), ["norm"]),
        ["fc1"],
        data_for(4, 3),
    ),
    (
        lambda: shifted(with_statistics(seeded(bottleneck)), ["1", "3"]),
        ["0", "3"],
        images(),
    ),
]


@pytest.mark.parametrize(("build", "merged", "data"), STYLES)
def test_all_styles_are_merged_and_then_train_save_and_load(
    build, merged, data, tmp_path
):
    model = build()
    state = copy.deepcopy(model.state_dict())
    for dtype, allowed in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        model = build().to(dtype)
        own = [(x.to(dtype), y) for x, y in data]
        edit = merge_layers(model, own, layers=merged, loss_fn=F.cross_entropy)
        size = max(1.0, edit.proof.output_scale)
        assert change(edit, model, own) <= allowed * size
        assert sorted(m.path for m in edit.proof.merges) == sorted(merged)
        assert next(edit.model.parameters()).dtype == dtype
    assert edit.proof.agreement == 1.0
    assert edit.proof.exact
    norm = float(gradient(edit.model, data).norm())
    assert edit.proof.gradient_after == pytest.approx(norm, rel=1e-9)
    for name, value in edit.model.state_dict().items():
        path = name.rpartition(".")[0]
        if path not in {m.reader for m in edit.proof.merges}:
            assert torch.equal(value, state[name])
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    torch.save(edit.model.state_dict(), tmp_path / "weights.pt")
    other = merge_layers(model, data, layers=merged).model
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(outputs(other, data), outputs(edit.model, data))
    x, y = data[0]
    loss = F.cross_entropy(edit.model(x), y)
    loss.backward()
    assert all(p.grad is not None for p in edit.model.parameters())


@settings(max_examples=20, deadline=None)
@given(
    *(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    *(st.integers(1, 2), st.integers(1, 2), st.integers(0, 2), st.integers(0, 1)),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    st.booleans(),
)
def test_convolutions_are_merged_exactly_or_refused(
    k1, k2, s1, s2, d1, d2, p1, p2, mode, bias
):
    def build():
        return nn.Sequential(
            nn.Conv2d(
                2, 3, (k1, 2), s1, p1, d1, padding_mode="reflect" if p1 else "zeros"
            )
            if k1 > 1
            else nn.Conv2d(2, 3, 1, s1, p1, bias=bias),
            nn.LeakyReLU(1.0),
            nn.Conv2d(3, 2, (k2, 1), s2, p2, d2, padding_mode=mode),
        )

    model, x = seeded(build), normal(3, 2, 11, 9)
    data = [(x, torch.zeros(3))]
    # A slope of one on both sides, with a kink: all neurons follow the identity.
    model[1] = nn.Hardtanh(-1e3, 1e3)
    edit = merge_layers(model, data)
    padded = p2 and (
        k1 > 1 or p1 or (bias and mode == "zeros") or (s1 > 1 and mode != "zeros")
    )
    assert len(edit.proof.merges) == (0 if padded else 1)
    for other in (data, [(normal(2, 2, 12, 10, seed=3), torch.zeros(2))]):
        assert edit.model(other[0][0]).shape == model(other[0][0]).shape
        assert change(edit, model, other) <= 1e-12
    if padded:
        assert "pads" in edit.what


def test_composed_convolutions_with_one_pointwise_are_regular_and_critical_together():
    # Strides of a pointwise producer become dilation, so that no tap is zero by design.
    model = seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 5, 1, 2), nn.Hardtanh(-9e2, 9e2), nn.Conv2d(5, 3, 2)),
            nn.Flatten(),
        )
    )
    edit = merge_layers(model, images())
    assert edit.model[0].dilation == (2, 2)
    assert edit.model[0].kernel_size == (2, 2)
    assert edit.proof.regular
    assert edit.proof.inertia_shift == (0, edit.proof.parameters_removed * -1, 0)
    wide = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 2), nn.Hardtanh(-9e2, 9e2), nn.Conv2d(5, 3, 2)
        )
    )
    edit = merge_layers(wide, images())
    assert not edit.proof.regular
    assert edit.proof.inertia_shift is None
    assert any("more freedom" in caveat for caveat in edit.proof.caveats)


def test_grouped_convolutions_and_pooling_are_refused_by_name():
    model = seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Flatten()),
            nn.Linear(8, 3),
        )
    )
    edit = merge_layers(model, images(), tolerance=9.0)
    reasons = dict(edit.proof.kept)
    assert "2 groups" in reasons["0"]
    assert "pooling stands between: '4'" in reasons["2"]
    assert "flattened" in reasons["5"]
    assert edit.model is not model
    assert change(edit, model, images()) == 0.0
    for path, reason in (("0", "2 groups"), ("2", "pooling"), ("5", "flattened")):
        with pytest.raises(EditError, match=reason):
            merge_layers(model, images(), layers=[path], tolerance=9.0)


def relative(before, after, path, data):
    """The relative root mean square change of what a layer returns, by hooks."""
    seen = []
    for model in (before, after):
        values = []
        module = model.get_submodule(path)
        handle = module.register_forward_hook(lambda m, a, y, v=values: v.append(y))
        outputs(model, data)
        handle.remove()
        seen.append(torch.cat(values))
    return float((seen[1] - seen[0]).norm() / seen[0].norm())


def test_approximate_merges_stay_within_the_tolerance_and_are_measured():
    model, data = nearly_linear_tanh(), normal_loader(3, samples=200)
    tolerance = 0.02
    edit = merge_layers(model, data, tolerance=tolerance, loss_fn=F.cross_entropy)
    assert 2 <= len(edit.proof.merges) < 5
    assert not edit.proof.exact
    current = model
    for merge in edit.proof.merges:
        # Made one by one, each is the change that was predicted and measured.
        step = merge_layers(current, data, layers=[merge.path], tolerance=tolerance)
        wanted = relative(current, step.model, merge.reader, data)
        assert merge.measured == pytest.approx(wanted, rel=1e-6)
        assert merge.predicted == pytest.approx(wanted, rel=1e-6)
        assert merge.predicted_by == "exact"
        assert wanted <= tolerance
        held = normal_loader(3, samples=200, seed=5)
        assert relative(current, step.model, merge.reader, held) <= 1.5 * tolerance
        current = step.model
    assert change_of(current, edit.model, data) <= 1e-12
    assert edit.proof.output_change == pytest.approx(change(edit, model, data))
    before, after = outputs(model, data), outputs(edit.model, data)
    same = float((before.argmax(1) == after.argmax(1)).double().mean())
    assert edit.proof.agreement == same
    # Only what is above the tolerance is left.
    left = dict(edit.proof.kept)
    assert left
    assert all("the tolerance is 0.02" in why for why in left.values())
    assert edit.proof.inertia_shift is None
    assert not edit.proof.regular


def test_the_smallest_change_comes_first():
    model, data = nearly_linear_tanh(), normal_loader(3)
    edit = merge_layers(model, data, tolerance=0.5)
    assert edit.proof.merges[0].predicted == min(
        merge_layers(model, data, layers=[str(2 * i)], tolerance=0.5)
        .proof.merges[0]
        .predicted
        for i in range(5)
    )


def test_the_paper_merges_by_correlation():
    model, data = nearly_linear_tanh(), normal_loader(3)
    edit = merge_layers(model, data, correlation=0.99)
    assert edit.proof.merges
    assert all(merge.correlation > 0.99 for merge in edit.proof.merges)
    assert all("not above 0.99" in why for _, why in edit.proof.kept)
    assert merge_layers(model, data, correlation=1.0).proof.merges == ()


def test_constant_neurons_become_constants():
    model, data = mlp([3, 4, 2], nn.Tanh), normal_loader(3)
    with torch.no_grad():
        model[0].weight *= 1e-3
        model[0].weight[1:3] = 0.0
    edit = merge_layers(model, data, tolerance=1e-3)
    assert len(edit.proof.merges) == 1
    assert change(edit, model, data) <= 1e-3
    # Linear in the rest: the bias holds what the constants add.
    assert relative(model, edit.model, "2", data) == pytest.approx(
        edit.proof.merges[0].measured, rel=1e-6
    )


def test_one_sample_is_enough():
    data = normal_loader(3, samples=1, batches=1)
    edit = merge_layers(mlp([3, 4, 2]), data)
    assert len(edit.proof.merges) == 1
    assert edit.proof.output_change <= 1e-12
    assert math.isnan(edit.proof.merges[0].correlation)


def test_nothing_to_merge_is_said_and_not_an_error():
    model, data = mlp([3, 6, 6, 2]), normal_loader(3, samples=60)
    edit = merge_layers(model, data)
    assert edit.proof.merges == ()
    assert "Merged nothing" in edit.what
    assert "neurons leave their affine piece" in edit.what
    assert edit.proof.parameters_removed == 0
    mine = {p.data_ptr() for p in model.parameters()}
    assert not mine & {p.data_ptr() for p in edit.model.parameters()}
    assert list(edit.model.state_dict()) == list(model.state_dict())
    with pytest.raises(EditError, match=r"'2' cannot be merged.*neurons leave"):
        merge_layers(model, data, layers=["2"])
    with pytest.raises(EditError, match="and the tolerance is"):
        merge_layers(model, data, layers=["2"], tolerance=1e-3)
    smooth = mlp([3, 6, 2], nn.Tanh)
    assert "Tanh has no affine piece" in merge_layers(smooth, data).what


def test_a_new_bias_and_lost_dropout_are_said():
    def build():
        return nn.Sequential(
            *(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 5, bias=False))
        )

    model = shifted(seeded(build), ["0"])
    edit = merge_layers(model, normal_loader(3, classes=2))
    assert edit.model[0].bias is not None
    assert sorted(c[:15] for c in edit.proof.caveats[1:]) == [
        *("A layer without", "A merged layer ", "Dropout between")
    ]
    assert not edit.proof.regular
    square = shifted(
        seeded(lambda: build()[:3].append(nn.Linear(4, 2, bias=False))), ["0"]
    )
    # The old bias reaches all of the new one.
    assert merge_layers(square, normal_loader(3)).proof.regular


def test_frozen_parameters_have_no_predicted_inertia():
    model = lifted(mlp([3, 4, 2])).requires_grad_(False)
    edit = merge_layers(model, normal_loader(3), loss_fn=F.cross_entropy)
    assert edit.proof.inertia_shift is None
    assert edit.proof.gradient_after == 0.0
    assert not any(p.requires_grad for p in edit.model.parameters())


def test_rank_deficient_layers_are_not_regular():
    model = lifted(mlp([3, 5, 4]))
    model[0].weight.data[1:] = model[0].weight.data[:1]
    model[2].weight.data[1:] = model[2].weight.data[:1]
    edit = merge_layers(model, normal_loader(3, classes=4))
    assert edit.proof.exact
    assert not edit.proof.regular


def test_the_model_and_the_random_state_stay_as_they_are():
    model, data = lifted(mlp([3, 4, 2])).train(), iter(normal_loader(3))
    state, seed = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    edit = merge_layers(model, data, loss_fn=F.cross_entropy)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in (*model.modules(), *edit.model.modules()))
    assert not any(m._forward_hooks for m in (*model.modules(), *edit.model.modules()))
    assert torch.equal(torch.get_rng_state(), seed)


def test_one_activation_at_several_paths_is_refused():
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    edit = merge_layers(
        shifted(model, ["0", "2"]), [(torch.zeros(2, 3), torch.zeros(2))]
    )
    assert "give each its own" in edit.what


def tied():
    model = mlp([3, 3, 3, 3])
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "data", "options", "error", "says"),
    [
        (
            mlp([3, 4, 2]),
            normal_loader(3),
            {"layers": ["7"]},
            LayerError,
            "none at '7'",
        ),
        (mlp([3, 4, 2]), normal_loader(3), {"layers": ["2"]}, LayerError, "Those are"),
        (
            mlp([3, 4, 2]),
            normal_loader(3),
            {"layers": "0"},
            ValueError,
            "list of paths",
        ),
        (convolutional().train(), images(), {}, EditError, "eval mode"),
        (mlp([3, 4, 2]), [], {}, BatchError, "at least one sample"),
        (mlp([3, 4, 2]), normal_loader(3), {"tolerance": -1}, ValueError, "above 0"),
        (mlp([3, 4, 2]), normal_loader(3), {"correlation": 2}, ValueError, "lie in"),
        (
            mlp([3, 4, 2]),
            normal_loader(3),
            {"correlation": 0.9, "tolerance": 0.1},
            ValueError,
            "got both",
        ),
        (
            mlp([3, 4, 2]),
            normal_loader(3),
            {"check_inertia": True},
            ValueError,
            "loss_fn",
        ),
        (
            mlp([3, 4, 2]),
            normal_loader(3),
            {"loss_fn": nn.CrossEntropyLoss(reduction="none")},
            LossError,
            "one number",
        ),
        (tied(), normal_loader(3, 3), {"layers": ["0"]}, EditError, "tied"),
    ],
)
def test_bad_input_is_named(model, data, options, error, says):
    with pytest.raises(error, match=says):
        merge_layers(model, data, **options)


def test_weights_that_are_not_finite_are_named():
    model = mlp([3, 4, 2])
    model[0].weight.data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        merge_layers(model, normal_loader(3))


@pytest.mark.parametrize(
    ("frozen", "wanted"),
    [
        (["0.weight"], False),
        (["0.weight", "0.bias"], False),
        (["2.weight"], True),
        (["2.bias"], True),
        (["0.weight", "2.weight", "2.bias"], True),
    ],
)
def test_criticality_is_claimed_of_what_trains(frozen, wanted):
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)))
    lifted(model)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    merged = merge_layers(model, data_for(5, 2, samples=40))
    assert merged.proof.regular == wanted
    flags = [model.get_parameter(f"2.{n}").requires_grad for n in ("weight", "bias")]
    assert [p.requires_grad for p in merged.model.parameters()] == flags


def test_neurons_off_their_piece_that_nothing_reads_are_merged():
    model = lifted(mlp([3, 4, 2]))
    with torch.no_grad():
        model[0].bias[1], model[2].weight[:, 1] = 0.0, 0.0
    data = data_for(3, 2, samples=40)
    edit = merge_layers(model, data)
    assert [merge.whole for merge in edit.proof.merges] == [False]
    assert change(edit, model, data) <= 1e-12
