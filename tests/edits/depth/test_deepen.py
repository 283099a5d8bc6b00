import copy

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
from tests.edits.networks import (
    Convolutional,
    Functional,
    Residual,
    convolutional,
    data_for,
    gradient,
    images,
    inertia,
    mlp,
    outputs,
    relu_minimum,
    seeded,
)

EXACT = [
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.PReLU),
    *(nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus),
    *(nn.Softshrink, nn.Hardshrink),
]
SMOOTH = [nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Mish]


@st.composite
def networks(draw):
    depth = draw(st.integers(2, 4))
    widths = draw(st.lists(st.integers(1, 7), min_size=depth + 1, max_size=depth + 1))
    layer = draw(st.integers(0, depth - 2))
    more = draw(st.integers(0, 4))
    seed = draw(st.integers(0, 2**16))
    return widths, layer, min(widths[layer + 1 : layer + 3]) + more, seed


@pytest.mark.parametrize("activation", EXACT)
@settings(max_examples=8, deadline=None)
@given(networks())
def test_outputs_are_preserved_in_both_precisions(activation, drawn):
    widths, layer, width, seed = drawn
    model = mlp(widths, activation, seed)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model = model.to(dtype)
        data = [(x.to(dtype), y) for x, y in data_for(widths[0], widths[-1], seed=seed)]
        edit = deepen(model, str(2 * layer), data, width=width)
        change = (outputs(edit.model, data) - outputs(model, data)).abs().max()
        assert change <= allowed
        assert edit.proof.output_change == pytest.approx(float(change), abs=1e-6)
        assert edit.proof.exact
        assert edit.proof.margin > 0
        assert next(edit.model.parameters()).dtype == dtype
        assert edit.model.get_submodule(edit.lifts[0].path).out_features == width


@pytest.mark.parametrize("construction", ["features", "preactivations"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardtanh, nn.LeakyReLU])
def test_both_constructions_are_the_old_layer_by_matrix_identity(
    activation, construction
):
    model, data = mlp([3, 4, 2], activation), data_for(3, 2)
    edit = deepen(model, "0", data, width=6, construction=construction)
    lift, piece = edit.lifts[0], edit.lifts[0].piece
    first = edit.model.get_submodule(lift.path)
    last = edit.model.get_submodule(lift.reader)
    weight = last.weight @ (piece.slope * first.weight)
    bias = last.weight @ (piece.slope * first.bias + piece.intercept) + last.bias
    torch.testing.assert_close(weight, model[2].weight, rtol=0, atol=1e-13)
    torch.testing.assert_close(bias, model[2].bias, rtol=0, atol=1e-12)
    assert lift.construction == construction
    # Neurons beyond those that are needed are zero.
    needed = {"features": 4, "preactivations": 2}[construction]
    assert (last.weight[:, needed:] == 0).all()
    assert (first.weight[needed:] == 0).all()
    assert (last.weight[:, :needed].abs().sum(0) > 0).all()


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations_err_by_the_square_and_their_gradients_by_the_radius(
    activation,
):
    model, data = relu_minimum()
    changes, residuals = [], []
    for radius in (1e-2, 1e-3):
        edit = deepen(
            model,
            "0",
            data,
            loss_fn=F.mse_loss,
            activation=activation(),
            segment_radius=radius,
        )
        changes.append(edit.proof.output_change)
        residuals.append(edit.proof.gradient_after)
        own = gradient(edit.model, data, F.mse_loss).norm()
        assert edit.proof.gradient_after == pytest.approx(float(own), rel=1e-6)
        assert not edit.proof.exact
        assert edit.proof.inertia_shift is None
    assert changes[0] / changes[1] == pytest.approx(100, rel=0.3)
    assert residuals[0] / residuals[1] == pytest.approx(10, rel=0.3)


def test_a_minimum_stays_one_and_gains_the_predicted_zeros():
    model, data = relu_minimum()
    assert gradient(model, data, F.mse_loss).norm() <= 1e-12
    before = model[0](data[0][0])
    assert before.abs().min() > 1e-4
    assert (before > 0).any(0).all()
    assert inertia(model, data) == (0, 2, 5)
    for after, wanted in ((["0"], (0, 8, 5)), (["0", "0"], (0, 14, 5))):
        edit = deepen(model, after, data, loss_fn=F.mse_loss)
        assert inertia(edit.model, data) == wanted
        assert edit.proof.inertia_shift == (0, wanted[1] - 2, 0)
        assert edit.proof.manifold_dimension == wanted[1] - 2
        assert gradient(edit.model, data, F.mse_loss).norm() <= 1e-12
        assert edit.proof.gradient_before <= 1e-12
        assert edit.proof.gradient_after <= 1e-12


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_dimension_counts_the_zeros_at_every_width(width):
    model, data = relu_minimum()
    edit = deepen(model, "0", data, width=width, activation=nn.LeakyReLU())
    extra = sum(p.numel() for p in edit.model.parameters()) - 7
    assert edit.proof.manifold_dimension == extra == width * (2 + 1 + 1) - 2
    assert inertia(edit.model, data) == (0, 2 + extra, 5)


def test_slopes_of_an_inserted_prelu_are_zeros_too():
    model, data = relu_minimum()
    edit = deepen(model, "0", data, activation=nn.PReLU())
    assert edit.proof.inertia_shift == (0, 7, 0)
    assert inertia(edit.model, data) == (0, 9, 5)


def test_a_bias_before_a_normalisation_is_a_zero_too():
    def build():
        return nn.Sequential(
            nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)
        )

    model, data = seeded(build), data_for(2, 2)
    edit = deepen(model, "0", data, loss_fn=F.cross_entropy, width=3)
    extra = [sum(p.numel() for p in m.parameters()) for m in (edit.model, model)]
    assert edit.proof.manifold_dimension == extra[0] - extra[1]
    assert edit.proof.inertia_shift is not None
    plain = deepen(model[:3], "0", data, loss_fn=F.cross_entropy)
    assert plain.proof.inertia_shift is None
    assert any("had no bias" in caveat for caveat in plain.proof.caveats)


def test_a_bottleneck_loses_rank_though_outputs_are_preserved():
    model, data = mlp([2, 3, 2], nn.Tanh, 3), data_for(2, 2, samples=20, batches=1)
    edit = deepen(model, "0", data, width=2, activation=nn.ReLU())

    def rank(features):
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        return int(torch.linalg.matrix_rank(torch.cat([features, ones], 1)))

    with torch.no_grad():
        features = model[:2](data[0][0])
        inserted = edit.model[:4](data[0][0])
    assert edit.proof.output_change <= 1e-12
    assert (rank(features), rank(inserted)) == (4, 3)


def test_a_lift_is_one_for_every_part_of_its_data():
    model, data = mlp([3, 4, 3]), data_for(3, 3, samples=20, batches=5)
    edit = deepen(model, "0", data)
    lift = edit.lifts[0]
    for part in data:
        with torch.no_grad():
            before = edit.model[:3](part[0])
        assert ((before > lift.piece.lower) & (before < lift.piece.upper)).all()
        torch.testing.assert_close(
            outputs(edit.model, [part]), outputs(model, [part]), rtol=0, atol=1e-12
        )


def test_outputs_are_preserved_within_the_radius_and_not_far_beyond():
    model, data = mlp([3, 4, 3]), data_for(3, 3, batches=1)
    edit = deepen(model, "input", data, activation=nn.ReLU())
    step = torch.zeros_like(data[0][0])
    step[:, 0] = 1.0
    for factor, same in ((-0.999, True), (-50.0, False)):
        near = [(data[0][0] + factor * edit.proof.radius * step, data[0][1])]
        change = (outputs(edit.model, near) - outputs(model, near)).abs().max()
        assert (change <= 1e-12) == same


@pytest.mark.parametrize(
    ("build", "after", "loader"),
    [
        (Functional, "fc1", data_for(4, 3)),
        (Functional, "fc2", data_for(4, 3)),
        (Functional, "fc3", data_for(4, 3)),
        (Functional, "input", data_for(4, 3)),
        (Functional, ["fc1", "fc2", "fc1"], data_for(4, 3)),
        (Residual, "stem", data_for(4, 3)),
        (Residual, "block1", data_for(4, 3)),
        (Residual, "block1.fc1", data_for(4, 3)),
        (Residual, "block2", data_for(4, 3)),
        (Residual, ["block1.fc1", "block2.fc1", "block1"], data_for(4, 3)),
        (Convolutional, "conv1", images()),
        (Convolutional, "conv2", images()),
        (Convolutional, "input", images()),
        (Convolutional, ["conv2", "conv1"], images()),
        (lambda: Convolutional("reflect"), "conv1", images()),
    ],
)
def test_all_styles_are_lifted_and_then_train_save_and_load(
    build, after, loader, tmp_path
):
    model = seeded(build)
    if isinstance(model, Convolutional):
        model = convolutional(padding_mode=model.conv2.padding_mode)
    state = copy.deepcopy(model.state_dict())
    edit = deepen(model, after, loader, loss_fn=F.cross_entropy)
    change = (outputs(edit.model, loader) - outputs(model, loader)).abs().max()
    assert change <= 1e-12
    assert set(model.state_dict()) <= {*edit.model.state_dict()} | {"conv1.bias"}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    torch.save(edit.model.state_dict(), tmp_path / "weights.pt")
    other = deepen(model, after, loader).model
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(outputs(other, loader), outputs(edit.model, loader))

    optimizer = torch.optim.SGD(edit.model.parameters(), lr=1e-3)
    x, y = loader[0]
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(edit.model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in edit.model.parameters())


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_features_pass_convolutions_that_pad_with_features(mode):
    model = convolutional(padding_mode=mode)
    edit = deepen(model, "conv1", images(), construction="features", width=5)
    assert edit.model.conv1_deeper.kernel_size == (1, 1)
    change = (outputs(edit.model, images()) - outputs(model, images())).abs().max()
    assert change <= 1e-12


def test_gradients_of_old_parameters_are_the_same():
    model, data = mlp([3, 4, 4, 2], seed=2), data_for(3, 2, batches=1)
    edit = deepen(model, "2", data, loss_fn=F.cross_entropy, width=5)
    grads = []
    for net in (model, edit.model):
        loss = F.cross_entropy(net(data[0][0]), data[0][1])
        grads.append(torch.autograd.grad(loss, [net[0].weight, net[2].weight]))
    for old, new in zip(*grads, strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-13)
    norm = float(gradient(model, data).norm())
    assert edit.proof.gradient_before == pytest.approx(norm, rel=1e-12)
    norm = float(gradient(edit.model, data).norm())
    assert edit.proof.gradient_after == pytest.approx(norm, rel=1e-12)


def test_the_model_and_the_random_state_stay_as_they_are():
    model, data = mlp([3, 4, 2]).train(), data_for(3, 2)
    names = [type(module) for module in model]
    state, seed = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    edit = deepen(model, "0", data, loss_fn=F.cross_entropy)
    assert [type(module) for module in model] == names
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(module.training for module in edit.model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in edit.model.modules())
    assert torch.equal(torch.get_rng_state(), seed)
    mine = {p.data_ptr() for p in model.parameters()}
    assert not mine & {p.data_ptr() for p in edit.model.parameters()}


def test_frozen_layers_get_frozen_ones():
    model = mlp([3, 4, 2]).requires_grad_(False)
    edit = deepen(model, "0", data_for(3, 2), loss_fn=F.cross_entropy)
    assert not any(p.requires_grad for p in edit.model.parameters())
    assert edit.proof.gradient_after == 0.0


def test_an_iterator_is_enough():
    data = data_for(3, 2)
    edit = deepen(mlp([3, 4, 2]), "0", iter(data), loss_fn=F.cross_entropy)
    assert edit.proof.samples == 12


def test_a_sum_over_samples_has_its_own_gradient():
    model, data = mlp([3, 4, 2]), data_for(3, 2)
    edits = [
        deepen(model, "0", data, loss_fn=nn.CrossEntropyLoss(reduction=how))
        for how in ("mean", "sum")
    ]
    ratio = edits[1].proof.gradient_before / edits[0].proof.gradient_before
    assert ratio == pytest.approx(12, rel=1e-12)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = (
            nn.Linear(3, 4),
            nn.LayerNorm(4),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        return self.fc2(self.norm(torch.relu(self.fc1(x))))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.left, self.right = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.left(h) + self.right(h)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 3), nn.Linear(3, 3)
        self.fc2.weight = self.fc1.weight

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def huge(data):
    return [(x.sign() * 0.9e308, y) for x, y in data]


DATA = data_for(3, 2)
BAD = [
    (mlp([3, 4, 2]), {"after": "1.weight"}, LayerError, "has none at"),
    (mlp([3, 4, 2]), {"after": "2"}, EditError, "the output of the model"),
    (mlp([3, 4, 2]), {"after": "0", "width": 1}, EditError, "at least 2"),
    (mlp([3, 4, 2]), {"after": "0", "width": 0}, ValueError, "width"),
    (
        mlp([3, 4, 2]),
        {"after": "0", "width": 3, "construction": "features"},
        EditError,
        "at least 4",
    ),
    (mlp([3, 4, 2]), {"after": []}, ValueError, "at least one"),
    (mlp([3, 4, 2]), {"after": "0", "at": "edge"}, ValueError, "interior"),
    (mlp([3, 4, 2]), {"after": "0", "at": "boundary"}, ValueError, "loss_fn"),
    (mlp([3, 4, 2]), {"after": "0", "construction": "x"}, ValueError, "auto"),
    (mlp([3, 4, 2]), {"after": "0", "residual": True, "width": 3}, EditError, "width"),
    (
        mlp([3, 4, 2]),
        {"after": "0", "residual": True, "construction": "features"},
        ValueError,
        "interior",
    ),
    (
        mlp([3, 4, 2]),
        {"after": "0", "check_inertia": True},
        ValueError,
        "Pass `loss_fn`",
    ),
    (mlp([3, 4, 2]), {"after": "0", "data": []}, BatchError, "at least one sample"),
    (mlp([3, 4, 2]), {"after": "0", "data": data_for(5, 2)}, BatchError, "must run"),
    (
        mlp([3, 4, 2]),
        {"after": "input", "data": huge(DATA), "activation": nn.Hardtanh()},
        EditError,
        "fit into an affine piece",
    ),
    (
        mlp([3, 4, 2]),
        {"after": "0", "loss_fn": nn.CrossEntropyLoss(reduction="none")},
        LossError,
        "'none'",
    ),
    (
        mlp([3, 4, 2]),
        {"after": "0", "activation": nn.Softmax(1)},
        EditError,
        "Softmax",
    ),
    (mlp([3, 4, 4], nn.Tanhshrink), {"after": "0"}, EditError, "Tanhshrink"),
    (seeded(Normed), {"after": "fc1"}, EditError, "LayerNorm"),
    (seeded(Two), {"after": "fc1"}, EditError, "into="),
    (seeded(Two), {"after": "fc1", "into": "middle"}, EditError, "'left', 'right'"),
    (seeded(Tied), {"after": "fc1"}, EditError, "tied"),
]


@pytest.mark.parametrize(("model", "options", "error", "message"), BAD)
def test_bad_input_is_named(model, options, error, message):
    with pytest.raises(error, match=message):
        deepen(model, **{"data": DATA, **options})


def test_zero_padding_is_exact_or_refused():
    model = convolutional()
    with pytest.raises(EditError, match="pads with zeros"):
        deepen(model, "conv1", images(), construction="features")
    with pytest.raises(EditError, match="at least 3"):
        deepen(model, "conv1", images(), width=2)


GROUPED = {
    "depthwise": ({"groups": 4, "padding": 1}, 4, 4),
    "more outputs": ({"groups": 2}, 4, 6),
    "fewer outputs": ({"groups": 2, "bias": False}, 4, 2),
    "dilated": ({"groups": 2, "padding": "same", "dilation": 2}, 4, 4),
}


@pytest.mark.parametrize(("options", "ins", "outs"), GROUPED.values(), ids=GROUPED)
@pytest.mark.parametrize("residual", [False, True])
def test_grouped_convolutions_are_lifted_group_by_group(options, ins, outs, residual):
    def build():
        return nn.Sequential(
            nn.Conv2d(2, ins, 1), nn.ReLU(), nn.Conv2d(ins, outs, 3, **options),
            nn.Tanh(), nn.Flatten(), nn.LazyLinear(3),
        )  # fmt: skip

    model, data = seeded(build), images()
    with torch.random.fork_rng(), torch.no_grad():
        model(data[0][0])
    if residual and "padding" in options:
        with pytest.raises(EditError, match="residual=False"):
            deepen(model, "0", data, residual=True)
        return
    edit = deepen(model, "0", data, loss_fn=F.cross_entropy, residual=residual)
    assert edit.model.get_submodule(edit.lifts[0].path).groups == options["groups"]
    generator = torch.Generator().manual_seed(0)
    for point in (edit, *lifted_manifold(edit, data, generator=generator, count=2)):
        change = (outputs(point.model, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12
    assert edit.proof.inertia_shift is None or options.get("bias", True)
    # No gradient between groups: what reads the features gets the same gradient.
    grads = [
        torch.autograd.grad(F.cross_entropy(net(data[0][0]), data[0][1]), net[0].weight)
        for net in (model, edit.model)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-13)


def test_widths_that_do_not_fit_groups_are_refused():
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    )
    with pytest.raises(EditError, match="multiple of its 2 groups"):
        deepen(model, "0", images(), width=5)
    edit = deepen(model, "0", images(), width=6)
    assert edit.proof.output_change <= 1e-12


def test_one_of_several_readers_can_be_chosen():
    model, data = seeded(Two), data_for(3, 3)
    edit = deepen(model, "fc1", data, into="right")
    assert edit.lifts[0].reader == "right"
    assert edit.proof.output_change <= 1e-12


def test_a_pass_that_depends_on_the_training_flag_is_found_out():
    class Flag(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * (1.0 if self.training else 2.0)

    model = Flag(*mlp([3, 4, 2])).double().train()
    edit = deepen(model, "0", DATA)
    # Looked at in eval mode, as that is where the model is a fixed function.
    assert edit.proof.output_change <= 1e-12


def test_the_summary_says_what_was_done_and_what_holds():
    text = deepen(mlp([3, 4, 2]), "0", DATA, loss_fn=F.cross_entropy).summary()
    for part in ("'0_deeper' after '0'", "outputs   exact", "gradient", "weight decay"):
        assert part in text


def test_inputs_and_features_that_are_not_finite_are_told_apart():
    model = mlp([3, 4, 2])
    with pytest.raises(NonFiniteError, match="inputs"):
        deepen(model, "0", [(x * torch.inf, y) for x, y in DATA])
    model[0].weight.data *= 10
    with pytest.raises(NonFiniteError, match="Features"):
        deepen(model, "0", [(x.sign() * 1.7e308, y) for x, y in DATA])
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        deepen(model, "0", DATA)


def test_train_mode_is_refused():
    with pytest.raises(EditError, match=r"model\.eval\(\)"):
        deepen(convolutional().train(), "conv1", images())


def test_wide_offsets_in_single_precision_stay_inside_the_piece():
    model = mlp([3, 4, 2], nn.Hardtanh).float()
    data = [((1e6 + x).float(), y) for x, y in DATA]
    edit = deepen(model, "input", data, activation=nn.Hardtanh(), width=3)
    scale = float((model[0].weight.detach().abs().sum(1) * 1e6).max())
    assert edit.proof.margin > 0
    with torch.no_grad():
        before = model[0](data[0][0])
        after = edit.model[:3](data[0][0])
    assert (before - after).abs().max() <= 1e-5 * scale


@st.composite
def convolutions(draw):
    channels = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    mode = draw(st.sampled_from(["zeros", "reflect", "circular"]))
    options = {
        "kernel_size": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.integers(0, 1)),
        "dilation": draw(st.integers(1, 2)),
        "padding_mode": mode,
        "bias": draw(st.booleans()),
    }
    return channels, options, draw(st.integers(0, 3)), draw(st.integers(0, 2**16))


@pytest.mark.parametrize("construction", ["features", "preactivations"])
@settings(max_examples=30, deadline=None)
@given(convolutions())
def test_convolutions_of_all_geometries_are_lifted_or_refused(construction, drawn):
    (a, b, c), options, more, seed = drawn

    def build():
        norm = nn.BatchNorm2d(b)
        norm.running_mean.normal_()
        first, last = nn.Conv2d(a, b, 3), nn.Conv2d(b, c, **options)
        return nn.Sequential(
            first, norm, nn.LeakyReLU(), last, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
        )

    model = seeded(build, seed)
    x = torch.randn(3, a, 7, 7, generator=torch.Generator().manual_seed(seed)).double()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model(x)
    data = [(x, torch.tensor([0, 1, 0]))]
    width = {"features": b, "preactivations": c}[construction] + more
    padded = options["padding"] and options["padding_mode"] == "zeros"
    if construction == "features" and padded:
        with pytest.raises(EditError, match="pads with zeros"):
            deepen(model, "0", data, width=width, construction=construction)
        return
    edit = deepen(model, "0", data, width=width, construction=construction)
    change = (outputs(edit.model, data) - outputs(model, data)).abs().max()
    assert change <= 1e-12
    assert type(edit.model) is nn.Sequential
