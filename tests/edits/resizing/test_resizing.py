import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits.graph import Graph
from layerpeel.edits.resizing import Channels, Resizing
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    normal,
    outputs,
    seeded,
)


class Maps(nn.Module):
    """Convolutions with PReLUs, and batch normalisation before and after flattening."""

    def __init__(self, after):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)
        self.act = nn.PReLU(5)
        self.norm = nn.BatchNorm2d(5)
        self.rows = nn.BatchNorm1d(20)
        self.fc = nn.Linear({"norm": 20, "mean": 5}.get(after, 20), 3)
        self.after = after

    def forward(self, x):
        h = F.max_pool2d(self.act(self.conv(x)), 2)
        if self.after == "norm":
            return self.fc(self.rows(torch.flatten(self.norm(h), 1)))
        if self.after == "mean":
            return self.fc(self.norm(h).mean((2, 3)))
        if self.after == "view":
            return self.fc(h.view(h.size(0), -1))
        if self.after == "fixed view":
            return self.fc(h.view(-1, 20))
        if self.after == "mixed view":
            return self.fc(h.flatten(0, 1).view(x.size(0), -1))
        if self.after == "scaled":
            return self.fc(h.flatten(1)) / h.shape[1]
        return self.fc(h)


def maps(after):
    model = seeded(lambda: Maps(after))
    model.act.weight.data = normal(5, seed=4)
    for i, norm in enumerate((model.norm, model.rows)):
        norm.running_mean.copy_(normal(norm.num_features, seed=i))
        norm.running_var.copy_(normal(norm.num_features, seed=i).square() + 0.5)
        norm.weight.data = normal(norm.num_features, seed=i + 2)
    return model


class Tokens(nn.Module):
    """Linear layers on sequences, flattened with the neurons last."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)).flatten(1))


NETWORKS = {
    "mlp": (lambda: mlp([4, 6, 5, 3], nn.Tanh), ["0", "2"], data_for(4, 3)),
    "prelu": (lambda: mlp([4, 6, 3], lambda: nn.PReLU(6)), ["0"], data_for(4, 3)),
    "functional": (lambda: seeded(Functional), ["fc1", "fc2", "fc3"], data_for(4, 3)),
    "residual": (
        lambda: seeded(Residual),
        ["block1.fc1", "block2.fc1"],
        data_for(4, 3),
    ),
    "cnn": (convolutional, ["conv1", "conv2"], images()),
    "reflected": (
        lambda: convolutional(padding_mode="reflect"),
        ["conv1"],
        images(),
    ),
    "norm": (lambda: maps("norm"), ["conv"], images()),
    "mean": (lambda: maps("mean"), ["conv"], images()),
    "view": (lambda: maps("view"), ["conv"], images()),
    "tokens": (
        lambda: seeded(Tokens),
        ["embed"],
        [(normal(5, 2, 3), torch.arange(5) % 2)],
    ),
}


def resizing_of(model, layer):
    graph = Graph(model, "layer")
    return Resizing(graph, graph.layer(layer))


@st.composite
def copies(draw):
    """Any neurons of a layer, with shares that add up to one, null neurons too."""
    return draw(st.lists(st.integers(-1, 2), max_size=5)), draw(st.integers(0, 999))


def shares_for(sources, width, seed):
    mixing = normal(width, len(sources), seed=seed)
    for k in range(width):
        own = sources == k
        mixing[:, own] -= mixing[:, own].sum(1, keepdim=True) / own.sum()
        mixing[k, own] += 1 / int(own.sum())
    mixing[:, sources < 0] = 0
    return mixing


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(copies())
def test_any_copies_read_with_shares_keep_the_outputs(name, drawn):
    build, layers, data = NETWORKS[name]
    more, seed = drawn
    for layer in layers:
        model = build()
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        resizing = resizing_of(model, layer)
        sources = torch.tensor([*range(resizing.width), *more])
        mixing = shares_for(sources, resizing.width, seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(sources), generator=generator)
        edited = resizing.model(sources[order], mixing[:, order])
        change = (outputs(edited, data) - outputs(model, data)).abs().max()
        assert change <= 1e-12
        assert type(edited) is type(model)
        assert edited.state_dict().keys() == kept.keys()
        assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


def test_kept_neurons_are_copied_to_the_last_bit():
    model = convolutional().float()
    resizing = resizing_of(model, "conv1")
    kept = torch.tensor([3, 1])
    edited = resizing.model(kept, torch.eye(4, dtype=torch.float64)[:, kept])
    assert torch.equal(edited.conv1.weight, model.conv1.weight[kept])
    assert torch.equal(edited.conv2.weight, model.conv2.weight[:, kept])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(edited.bn1, name), getattr(model.bn1, name)[kept])
    assert edited.bn1.num_batches_tracked == model.bn1.num_batches_tracked
    assert edited.bn1.num_features == edited.conv1.out_channels == 2


def test_dtype_flags_and_missing_biases_stay():
    model = maps("norm").half()
    model.conv.weight.requires_grad_(False)
    resizing = resizing_of(model, "conv")
    sources = torch.tensor([0, 1, 2, 3, 4, 4])
    mixing = torch.eye(5, dtype=torch.float64)[:, sources]
    edited = resizing.model(sources, mixing)
    assert all(p.dtype == torch.float16 for p in edited.parameters())
    assert not edited.conv.weight.requires_grad
    assert edited.fc.weight.requires_grad
    assert edited.conv.bias is None
    assert edited.rows.num_features == 24


def test_null_neurons_have_the_bias_as_their_preactivation():
    model = convolutional()
    resizing = resizing_of(model, "conv1")
    sources = torch.tensor([0, 1, 2, 3, -1, -1])
    mixing = torch.eye(4, 6, dtype=torch.float64)
    edited = resizing.model(sources, mixing, null_bias=torch.tensor([0.3, -0.2]))
    seen = edited.bn1(edited.conv1(images()[0][0]))[:, 4:]
    wanted = torch.tensor([0.3, -0.2])[None, :, None, None].double().expand_as(seen)
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-7)
    edited.train()
    seen = edited.bn1(edited.conv1(images()[0][0]))[:, 4:]
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-7)


def test_a_shift_is_added_to_the_bias_and_made_where_there_is_none():
    model = convolutional()
    eye = torch.eye(4, dtype=torch.float64)
    modules = resizing_of(model, "conv1").columns(eye, {"conv2": torch.ones(3)})
    assert torch.equal(modules["conv2"].bias, torch.ones(3).double())
    model = mlp([2, 3, 2])
    eye = torch.eye(3, dtype=torch.float64)
    modules = resizing_of(model, "0").columns(eye, {"2": torch.ones(2)})
    assert torch.equal(modules["2"].bias, model[2].bias + 1)


@pytest.mark.parametrize("name", ["cnn", "tokens", "view", "mlp"])
def test_a_reader_made_of_its_own_blocks_is_the_same(name):
    build, layers, _ = NETWORKS[name]
    resizing = resizing_of(build(), layers[-1])
    consumer = resizing.consumers[0]
    blocks = resizing.blocks(consumer)
    assert blocks.shape[1] == resizing.width
    same = resizing.reader(consumer, blocks)
    assert torch.equal(same.weight, consumer.module.weight)
    order = torch.arange(resizing.width - 1, -1, -1)
    turned = resizing.reader(consumer, blocks[:, order])
    wanted = resizing.columns(torch.eye(resizing.width).double()[:, order])
    assert torch.equal(turned.weight, wanted[consumer.path].weight)


def test_channels_last_and_first():
    values = torch.arange(6.0)
    first, last = Channels(3, False), Channels(3, True)
    two = torch.tensor([2, -1])
    assert first.gathered(values, 0, two, 9.0).tolist() == [4, 5, 9, 9]
    assert last.gathered(values, 0, two, 9.0).tolist() == [2, 9, 5, 9]
    mixing = torch.tensor([[1.0, 0.5], [0, 0.5], [0, 0]]).double()
    assert first.mixed(values, 0, mixing).tolist() == [0, 1, 1, 2]
    assert last.mixed(values, 0, mixing).tolist() == [0, 0.5, 3, 3.5]


class Odd(nn.Module):
    """Layers that cannot have another width, each for a reason of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.ln, self.c, self.d = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied, self.free = nn.Linear(4, 4), nn.Linear(4, 4)
        self.d.weight = self.tied.weight
        self.wide = nn.Conv1d(4, 4, 1)

    def forward(self, x):
        h = torch.relu(self.a(x))
        h = h + torch.relu(self.b(h))
        h = self.d(torch.relu(self.ln(self.c(h))))
        return self.free(torch.relu(self.tied(h)))


REFUSED = {
    "a": (lambda: seeded(Odd), "also read by add"),
    "b": (lambda: seeded(Odd), "also read by add"),
    "c": (lambda: seeded(Odd), "'ln' .LayerNorm"),
    "d": (lambda: seeded(Odd), "tied to"),
    "tied": (lambda: seeded(Odd), "tied to"),
    "free": (lambda: seeded(Odd), "the output of the model"),
    "ln": (lambda: seeded(Odd), "must be an nn.Linear"),
    "conv": (lambda: maps("fixed view"), r"flatten\(x, 1\)"),
}
PLACES = {
    "mixed view": "one row per sample",
    "scaled": "must not compute with the number",
    "none": "rather than places",
}


@pytest.mark.parametrize("layer", REFUSED)
def test_what_stands_in_the_way_is_named(layer):
    build, message = REFUSED[layer]
    with pytest.raises(EditError, match=message):
        resizing_of(build(), layer)


@pytest.mark.parametrize("after", PLACES)
def test_neurons_must_be_where_the_reader_takes_them_to_be(after):
    with pytest.raises(EditError, match=PLACES[after]):
        resizing_of(maps(after), "conv")


def test_groups_parametrisations_and_pools_are_refused():
    grouped = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(EditError, match="one group; '2' has 4"):
        resizing_of(grouped, "0")
    grouped = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(EditError, match="one group; '0' has 2"):
        resizing_of(grouped, "0")
    normed = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 2)
    )
    with pytest.raises(EditError, match="plain"):
        resizing_of(normed, "0")
    pooled = nn.Sequential(nn.Linear(4, 4), nn.MaxPool2d(2), nn.Linear(2, 2))
    with pytest.raises(EditError, match="mix its neurons"):
        resizing_of(pooled, "0")


def test_a_null_neuron_with_a_bias_needs_a_place_for_it():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    resizing = resizing_of(model, "0")
    sources = torch.tensor([0, 1, 2, -1])
    assert resizing.rows(sources)["0"].bias is None
    with pytest.raises(EditError, match="has none"):
        resizing.rows(sources, 0.5)


def test_maps_that_are_flattened_before_their_activation_are_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(18, 2))
    graph = Graph(model, "layer")
    with pytest.raises(EditError, match="after its activation"):
        Resizing(graph, graph.layer("0"))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("widths", [(3, 0, 2), (0, 3, 2)])
def test_layers_without_weights_are_refused(widths):
    model = mlp(list(widths))
    with pytest.raises(EditError, match="at least one neuron"):
        Resizing(Graph(model, "layer"), Graph(model, "layer").layer("0"))
