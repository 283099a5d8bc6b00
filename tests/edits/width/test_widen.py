import copy
from dataclasses import replace

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
from layerpeel.edits.data import Data
from layerpeel.edits.depth import deepen
from layerpeel.edits.graph import Graph
from layerpeel.edits.width import WidthProof, widen
from layerpeel.edits.width.certificate import split_matrices
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    critical_data,
    data_for,
    gradient,
    images,
    inertia,
    mlp,
    normal,
    outputs,
    risk_of,
    seeded,
    tanh_pair,
)

PRECISIONS = ((torch.float64, 1e-12), (torch.float32, 1e-5))
NETWORKS = {
    "functional": (lambda: seeded(Functional), ["fc1", "fc2", "fc3"], data_for(4, 3)),
    "residual": (
        lambda: seeded(Residual),
        ["block1.fc1", "block2.fc1"],
        data_for(4, 3),
    ),
    "cnn": (convolutional, ["conv1", "conv2"], images()),
}
ALPHAS = st.one_of(st.just("auto"), st.floats(-2, 2))


def change(model, edit, data):
    return float((outputs(edit.model, data) - outputs(model, data)).abs().max())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=5),
    st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.PReLU, nn.Identity]),
    st.sampled_from(["split", "null"]),
    st.integers(1, 9),
    ALPHAS,
    st.integers(0, 2**16),
)
def test_outputs_are_preserved_for_every_input(
    widths, activation, kind, by, alpha, seed
):
    model = mlp(widths, activation, seed)
    layer = 2 * (seed % (len(widths) - 2))
    for dtype, allowed in PRECISIONS:
        model = model.to(dtype)
        x = 2 * normal(20, widths[0], seed=seed).to(dtype)
        alpha = 0.5 if by > 3 and alpha != "auto" else alpha
        edit = widen(model, str(layer), by, alpha=alpha, kind=kind)
        assert change(model, edit, [(x, x)]) <= allowed
        assert edit.proof.everywhere
        assert edit.proof.exact
        assert edit.proof.output_change is None
        assert edit.model[layer].out_features == widths[layer // 2 + 1] + by
        assert next(edit.model.parameters()).dtype == dtype


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["split", "null"])
def test_networks_of_all_styles(name, kind):
    build, layers, data = NETWORKS[name]
    for dtype, allowed in PRECISIONS:
        model = build().to(dtype)
        typed = [(x.to(dtype), y) for x, y in data]
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        for layer in layers:
            edit = widen(model, layer, 3, data=typed, kind=kind)
            assert change(model, edit, typed) == edit.proof.output_change <= allowed
            assert edit.model.state_dict().keys() == kept.keys()
            loaded = copy.deepcopy(edit.model)
            loaded.load_state_dict(edit.model.state_dict())
            assert change(model, edit, typed) <= allowed
            F.cross_entropy(edit.model(typed[0][0]), typed[0][1]).backward()
        assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


def test_without_a_loss_the_largest_outgoing_weights_are_split():
    model = mlp([2, 3, 2])
    model[2].weight.data = torch.tensor([[1.0, 0, 6], [1, 3, 0]]).double()
    edit = widen(model, "0", 3)
    assert edit.proof.neurons == (2, 1, 2)
    assert edit.proof.alphas == (0.5, 0.5, 0.5)
    assert edit.model[2].weight[0].tolist() == [1, 0, 1.5, 3, 0, 1.5]
    assert any("nothing is said" in note for note in edit.proof.caveats)
    assert edit.proof.curvature is None
    assert not edit.direction


def test_chosen_neurons_take_the_share_of_what_is_left():
    model = mlp([2, 3, 2])
    edit = widen(model, "0", 2, neurons=[1, 1], alpha=-0.5)
    a = model[2].weight[:, 1]
    found = edit.model[2].weight[:, [1, 3, 4]]
    torch.testing.assert_close(found, torch.stack([2.25 * a, -0.5 * a, -0.75 * a], 1))
    assert torch.equal(edit.model[0].weight[3:], model[0].weight[[1, 1]])


def curvature_along(model, direction, data, loss):
    risk, point = risk_of(model, data, loss)
    flat = torch.cat(
        [
            direction.get(name, torch.zeros_like(p)).flatten()
            for name, p in model.named_parameters()
        ]
    )
    hessian = torch.autograd.functional.hessian(risk, point)
    return float(flat @ hessian @ flat), float(flat.norm())


SHAPES = [
    ([1, 2, 1], "0", 1, {}),
    ([2, 3, 2, 2], "2", 2, {}),
    ([2, 3, 2, 2], "0", 3, {"neurons": [1, 1, 0]}),
    ([2, 3, 2], "0", 2, {"kind": "null"}),
    ([2, 3, 2], "0", 2, {"kind": "null", "alpha": 0.8}),
    ([2, 3, 2], "0", 4, {"alpha": -0.7}),
    ([2, 2, 2], "0", 5, {"alpha": 0.3}),
    ([2, 2, 2], "0", 1, {"alpha": 1.0}),
]


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inertia_and_curvature_are_those_of_the_dense_hessian(shape, critical):
    widths, layer, by, options = shape
    model = mlp(widths, nn.Tanh, 5)
    data = data_for(widths[0], widths[-1])
    data = critical_data(model, widths[0]) if critical else data
    loss = F.mse_loss if critical else F.cross_entropy
    if not critical and widths[-1] == 1:
        data, loss = [(x, x[:, :1]) for x, _ in data], F.mse_loss
    edit = widen(
        model, layer, by, data=data, loss_fn=loss, check_inertia=True, **options
    )
    proof = edit.proof
    after, before = inertia(edit.model, data, loss), inertia(model, data, loss)
    assert proof.inertia_shift == tuple(
        a - b for a, b in zip(after, before, strict=True)
    )
    assert proof.inertia_checked
    assert not any("predict" in note for note in proof.caveats)
    assert proof.output_change <= 1e-12
    assert len(proof.certificates) == by
    assert edit.direction
    value, length = curvature_along(edit.model, edit.direction, data, loss)
    assert length == pytest.approx(1)
    assert value == pytest.approx(proof.curvature, rel=1e-6)
    assert value < 0
    assert proof.measured_drop > 0
    own = gradient(edit.model, data, loss).norm()
    assert proof.gradient_after == pytest.approx(float(own), rel=1e-6, abs=1e-14)
    assert proof.is_strict_saddle == critical
    assert any("gradient does not vanish" in n for n in proof.caveats) != critical
    if critical:
        assert proof.gradient_before <= 1e-10


def test_a_split_turns_a_minimum_into_a_strict_saddle():
    model = tanh_pair()
    data = critical_data(model, 1, scale=1e-2)
    assert gradient(model, data, F.mse_loss).norm() <= 1e-12
    assert inertia(model, data) == (0, 0, 7)
    # The certificate's matrix is indefinite.
    graph = Graph(model, "layer")
    found = split_matrices(
        graph, graph.layer("0"), Data(data, model), F.mse_loss, neuron=0
    )
    assert torch.linalg.eigvalsh(found.B)[0] < 0 < torch.linalg.eigvalsh(found.B)[1]
    edit = widen(model, "0", 1, data=data, loss_fn=F.mse_loss, neurons=[0])
    assert inertia(edit.model, data) == (1, 1, 8)
    assert edit.proof.inertia_shift == (1, 1, 1)
    assert edit.proof.is_strict_saddle
    assert "a strict saddle" in edit.summary()


def test_the_predicted_drop_is_the_measured_one_on_short_steps():
    model = tanh_pair()
    data = critical_data(model, 1)
    edit = widen(model, "0", 1, data=data, loss_fn=F.mse_loss, kind="null")
    risk, point = risk_of(edit.model, data, F.mse_loss)
    flat = torch.cat(
        [
            edit.direction.get(name, torch.zeros_like(p)).flatten()
            for name, p in edit.model.named_parameters()
        ]
    )
    for step in (1e-3, 1e-2):
        drop = float(risk(point) - risk(point + step * flat))
        assert drop == pytest.approx(-(step**2) * edit.proof.curvature / 2, rel=0.05)
    moved = float(risk(point) - risk(point + edit.proof.step * flat))
    assert moved == pytest.approx(edit.proof.measured_drop, rel=1e-9)


def test_convolutions_are_certified():
    model, data = convolutional(), images()
    for kind in ("split", "null"):
        layer = {"split": "conv1", "null": "conv2"}[kind]
        edit = widen(model, layer, 2, data=data, loss_fn=F.cross_entropy, kind=kind)
        value, length = curvature_along(
            edit.model, edit.direction, data, F.cross_entropy
        )
        assert length == pytest.approx(1)
        assert value == pytest.approx(edit.proof.curvature, rel=1e-6)
        assert edit.proof.measured_drop > 0


class Branches(nn.Module):
    """A layer that two others read, and a sequence that is flattened."""

    def __init__(self):
        super().__init__()
        self.stem, self.tokens = nn.Linear(4, 5), nn.Linear(3, 2)
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3, bias=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        h = torch.stack([self.left(h), torch.sigmoid(self.right(h)), h[:, :3]], 1)
        return self.head(torch.tanh(self.tokens(h)).flatten(1))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 5)
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        return self.left(h) * torch.sigmoid(self.right(h))


@pytest.mark.parametrize("kind", ["split", "null"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_layers_that_several_read_are_certified(kind, reduction):
    model, data = seeded(Gated), data_for(4, 3)
    loss = nn.CrossEntropyLoss(reduction=reduction)
    edit = widen(
        model, "stem", 3, data=data, loss_fn=loss, kind=kind, check_inertia=True
    )
    after, before = inertia(edit.model, data, loss), inertia(model, data, loss)
    shift = tuple(a - b for a, b in zip(after, before, strict=True))
    assert edit.proof.inertia_shift == shift
    assert not any("predict" in note for note in edit.proof.caveats)
    value, _ = curvature_along(edit.model, edit.direction, data, loss)
    assert value == pytest.approx(edit.proof.curvature, rel=1e-6)
    assert edit.proof.measured_drop > 0


def test_flattened_sequences_are_widened_but_not_certified():
    model, data = seeded(Branches), data_for(4, 2)
    edit = widen(model, "tokens", 2, data=data)
    assert change(model, edit, data) <= 1e-12
    with pytest.raises(EditError, match="Leave `loss_fn` out"):
        widen(model, "tokens", 2, data=data, loss_fn=F.cross_entropy)
    with pytest.raises(EditError, match="also read by getitem"):
        widen(model, "stem", 1)


def test_single_precision_is_certified_and_edits_follow_each_other():
    model = seeded(Residual).float()
    data = [(x.float(), y) for x, y in data_for(4, 3)]
    current = deepen(model, "block1.fc1", data).model
    for layer in ("block1.fc1", "block1.fc1_deeper", "block1.fc1"):
        edit = widen(current, layer, 2, data=data, loss_fn=F.cross_entropy)
        assert edit.proof.output_change <= 1e-5
        assert edit.proof.measured_drop > 0
        assert not any("product with the Hessian" in n for n in edit.proof.caveats)
        assert all(step.dtype == torch.float32 for step in edit.direction.values())
        current = edit.model
    assert (outputs(current, data) - outputs(model, data)).abs().max() <= 1e-5
    assert current.get_submodule("block1.fc1").out_features == 9


def test_nothing_to_escape_is_said():
    model = mlp([2, 3, 1], nn.Tanh)
    x = normal(9, 2)
    data = [(x, outputs(model, [(x, x)]))]
    edit = widen(model, "0", 1, data=data, loss_fn=F.mse_loss)
    assert not edit.direction
    assert edit.proof.curvature is None
    assert edit.proof.measured_drop is None
    assert not edit.proof.is_strict_saddle
    assert any("No new neuron opens" in note for note in edit.proof.caveats)


def test_shares_of_zero_and_one_are_said_to_be_degenerate():
    model = mlp([2, 3, 2], nn.Tanh, 3)
    data = critical_data(model, 2)
    for alpha in (0.0, 1.0):
        edit = widen(model, "0", 1, data=data, loss_fn=F.mse_loss, alpha=alpha)
        assert any("share of 0 or 1" in note for note in edit.proof.caveats)
        assert change(model, edit, data) <= 1e-12


BAD = {
    "layer": (dict(layer="1x"), LayerError, "Did you mean '1'"),
    "by": (dict(by=0), ValueError, "`by` must be an integer >= 1"),
    "kind": (dict(kind="nul"), ValueError, "Did you mean 'null'"),
    "alpha": (dict(alpha=float("nan")), ValueError, "finite number"),
    "alpha text": (dict(alpha="half"), ValueError, "'auto' or a finite number"),
    "neurons": (dict(neurons=[7]), ValueError, "0 to 2"),
    "count": (dict(neurons=[0, 1]), ValueError, "must be 1 of"),
    "null": (dict(kind="null", neurons=[0]), ValueError, "copies of none"),
    "word": (dict(neurons="all"), ValueError, "'auto' or a list"),
    "loss alone": (dict(loss_fn=F.cross_entropy), ValueError, "data=loader"),
    "inertia": (dict(check_inertia=True), ValueError, "`loss_fn`"),
    "last": (dict(layer="2"), EditError, "the output of the model"),
    "activation": (dict(layer="1"), EditError, "nn.Linear or nn.Conv2d"),
    "empty": (dict(data=[]), BatchError, "at least one sample"),
    "none": (
        dict(data=data_for(2, 2), loss_fn=nn.CrossEntropyLoss(reduction="none")),
        LossError,
        "one number",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_what_would_be_good(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        widen(mlp([2, 3, 2]), **{"layer": "0", "by": 1, **options})


def test_models_that_cannot_be_widened():
    norm = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(EditError, match="LayerNorm"):
        widen(norm, "0", 1)
    with pytest.raises(EditError, match="eval mode"):
        widen(convolutional().train(), "conv1", 1)
    broken = mlp([2, 3, 2])
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        widen(broken, "0", 1)
    with pytest.raises(EditError, match="also read by"):
        widen(seeded(Residual), "stem", 1)


def test_loaders_that_shuffle_are_certified_as_well():
    model, data = mlp([4, 5, 3], nn.Tanh), data_for(4, 3)
    rows = torch.utils.data.TensorDataset(
        torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    )
    loader = torch.utils.data.DataLoader(
        rows, 5, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    for kind in ("split", "null"):
        proofs = [
            widen(model, "0", 2, data=d, loss_fn=F.cross_entropy, kind=kind).proof
            for d in (loader, data)
        ]
        assert proofs[0].inertia_shift == proofs[1].inertia_shift
        assert proofs[0].curvature == pytest.approx(proofs[1].curvature, rel=1e-9)


def flattened():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.BatchNorm1d(8),
        nn.Linear(8, 2),
    )  # fmt: skip
    model[3].running_mean.normal_()
    model[3].weight.data.uniform_(0.5, 2)
    return model.double().eval()


@pytest.mark.parametrize("kind", ["split", "null"])
def test_maps_that_are_flattened_before_batch_normalisation_are_certified(kind):
    model = flattened()
    data = [(normal(9, 1, 5, 5), torch.arange(9) % 2)]
    edit = widen(
        model, "0", 2, data=data, loss_fn=F.cross_entropy, kind=kind, check_inertia=True
    )
    assert edit.proof.output_change <= 1e-12
    assert not any("predict" in note for note in edit.proof.caveats)
    value, length = curvature_along(edit.model, edit.direction, data, F.cross_entropy)
    assert length == pytest.approx(1)
    assert value == pytest.approx(edit.proof.curvature, rel=1e-6)


def test_null_neurons_before_padding_say_whether_a_height_of_zero_helps():
    data = [(normal(4, 1, 5, 5), torch.arange(4) % 2)]
    for activation, message in ((nn.ReLU(), "kind='split'"), (nn.Tanh(), "alpha=0.0")):
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3), activation, nn.Conv2d(2, 2, 3, padding=1), nn.Flatten(),
            nn.Linear(18, 2),
        ).double()  # fmt: skip
        options = dict(data=data, loss_fn=F.cross_entropy, kind="null")
        with pytest.raises(EditError, match=message):
            widen(model, "0", 1, alpha=0.7, **options)
    assert widen(model, "0", 1, **options).proof.measured_drop > 0


def test_a_saddle_is_claimed_beyond_the_gradient_alone():
    proof = WidthProof(
        exact=True, everywhere=True, samples=1, neurons=(0,), alphas=(0.5,),
        gradient_after=1e-9, curvature=-1e-7, measured_curvature=-1e-7,
        predicted_drop=5e3, measured_drop=1.0, step=3.0,
    )  # fmt: skip
    assert proof.is_strict_saddle
    assert "beyond where the second order holds" in proof.details()[-1]
    for change in (
        dict(gradient_after=2e-8),
        dict(curvature=-5e-9, measured_curvature=-5e-9),
        dict(measured_curvature=1e-7),
        dict(measured_curvature=None),
    ):
        assert not replace(proof, **change).is_strict_saddle
    short = replace(proof, predicted_drop=1.5)
    assert "1.500e+00 to second order" in short.details()[-1]
