import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from layerpeel._checks import EditError, LayerError, NonFiniteError
from layerpeel.edits.graph.graph import Graph
from tests.edits.networks import Convolutional, Functional, Residual, mlp


class Calls(nn.Module):
    """Calls one activation, given as a function."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)
        self.activation = activation

    def forward(self, x):
        return self.last(self.activation(self.first(x)))


ACTIVATIONS = [
    (F.relu, nn.ReLU),
    (F.relu_, nn.ReLU),
    (torch.relu, nn.ReLU),
    (torch.relu_, nn.ReLU),
    (lambda x: x.relu(), nn.ReLU),
    (lambda x: x.relu_(), nn.ReLU),
    (lambda x: F.relu(x, inplace=True), nn.ReLU),
    (F.relu6, nn.ReLU6),
    (lambda x: F.leaky_relu(x, 0.3), nn.LeakyReLU),
    (lambda x: F.elu(x, alpha=0.3), nn.ELU),
    (lambda x: F.hardtanh(x, -0.2, 0.4), nn.Hardtanh),
    (F.selu, nn.SELU),
    (torch.tanh, nn.Tanh),
    (F.tanh, nn.Tanh),
    (lambda x: x.tanh(), nn.Tanh),
    (torch.sigmoid, nn.Sigmoid),
    (lambda x: F.gelu(x, approximate="tanh"), nn.GELU),
    (F.silu, nn.SiLU),
    (lambda x: F.softplus(x, 3.0), nn.Softplus),
]


@pytest.mark.parametrize(("function", "kind"), ACTIVATIONS)
def test_activations_are_recognised_with_their_options(function, kind):
    layer = Graph(Calls(function).eval()).layer("first")
    x = torch.linspace(-2, 2, 50)
    assert type(layer.activation) is kind
    assert torch.equal(layer.activation(x.clone()), function(x.clone()))
    assert [c.path for c in layer.consumers] == ["last"]
    assert layer.producer.path == "first"


@pytest.mark.parametrize(
    ("model", "path", "activation", "consumers", "others"),
    [
        (mlp([2, 3, 2]), "0", "ReLU", ["2"], ()),
        (mlp([2, 3, 2]), "1", "ReLU", ["2"], ()),
        (mlp([2, 3, 2]), "input", "NoneType", ["0"], ()),
        (mlp([2, 3, 2]), "2", "NoneType", [], ("the output of the model",)),
        (Functional().eval(), "fc1", "ReLU", ["fc2"], ()),
        (Functional().eval(), "fc3", "ReLU", ["fc4"], ()),
        (Residual().eval(), "stem", "ReLU", ["block1.fc1"], ("add",)),
        (Residual().eval(), "block1", "ReLU", ["block2.fc1"], ("add",)),
        (Residual().eval(), "block1.fc1", "ReLU", ["block1.fc2"], ()),
        (Residual().eval(), "block1.fc2", "NoneType", [], ("add",)),
        (Convolutional().eval(), "conv1", "ReLU", ["conv2"], ()),
        (Convolutional().eval(), "conv2", "ReLU", ["fc"], ()),
        (Convolutional().eval(), "bn2", "ReLU", ["fc"], ()),
    ],
)
def test_layers_know_what_is_around_them(model, path, activation, consumers, others):
    layer = Graph(model).layer(path)
    assert type(layer.activation).__name__ == activation
    assert [c.path for c in layer.consumers] == consumers
    assert layer.others == others


def test_normalisations_between_are_named():
    assert Graph(Convolutional().eval()).layer("conv2").norms == ("bn2",)


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.again(torch.relu(self.again(torch.relu(self.first(x)))))


def test_branches_on_data_are_shown():
    with pytest.raises(EditError, match=r"if x\.sum\(\) > 0"):
        Graph(Branching())


@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm1d(2), nn.Dropout(0.1), nn.BatchNorm1d(2, track_running_stats=False)],
)
def test_train_mode_is_refused_by_name(module):
    with pytest.raises(EditError, match=rf"'?1'?.*{type(module).__name__}"):
        Graph(nn.Sequential(nn.Linear(2, 2), module))


def test_functional_dropout_that_is_always_on_is_refused():
    with pytest.raises(EditError, match="training=True"):
        Graph(Calls(F.dropout).eval())


class Dropping(nn.Module):
    def __init__(self, function=F.dropout, *, branch=False):
        super().__init__()
        self.first, self.last = nn.Linear(2, 300), nn.Linear(300, 2)
        self.function, self.branch = function, branch

    def forward(self, x):
        h = self.function(torch.relu(self.first(x)), p=0.3, training=self.training)
        if self.training and self.branch:
            h = 2 * h
        return self.last(h)


def test_functional_dropout_is_kept_as_a_module():
    graph = Graph(Dropping().eval())
    assert graph.notes == ()
    reader = graph.layer("first").consumers[0]
    edited = graph.inserted(reader, {"new": nn.Identity()}, reader.module)
    (drop,) = (m for m in edited.modules() if isinstance(m, nn.Dropout))
    assert drop.p == 0.3
    assert not drop.training
    x = torch.ones(1, 2)
    assert torch.equal(edited(x), edited(x))
    edited.train()
    with torch.random.fork_rng():
        assert not torch.equal(edited(x), edited(x))


def test_a_pass_that_is_another_one_in_train_mode_is_noted():
    (note,) = Graph(Dropping(branch=True).eval()).notes
    assert "train mode" in note
    assert Graph(Functional().eval()).notes == ()


def test_unknown_layers_get_the_nearest_names():
    with pytest.raises(LayerError, match="Did you mean 'fc1'"):
        Graph(Functional().eval()).layer("c1")


def test_shared_modules_are_refused():
    graph = Graph(Shared())
    with pytest.raises(LayerError, match="2 times"):
        graph.layer("again")
    reader = graph.layer("first").consumers[0]
    with pytest.raises(EditError, match="called 2 times"):
        graph.check_own(reader)


def test_tied_weights_are_refused():
    model = mlp([3, 3, 3])
    model[2].weight = model[0].weight
    graph = Graph(model)
    with pytest.raises(EditError, match=r"tied to 0\.weight"):
        graph.check_own(graph.layer("0").consumers[0])


def test_parametrised_layers_are_refused():
    model = mlp([3, 3, 3])
    nn.utils.parametrizations.weight_norm(model[2])
    graph = Graph(model)
    with pytest.raises(EditError, match="plain"):
        graph.check_own(graph.layer("0").consumers[0])


def test_weights_that_are_not_finite_are_named():
    model = mlp([2, 2])
    model[0].bias.data[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"0\.bias"):
        Graph(model)


def test_names_are_not_used_twice():
    model = nn.Sequential()
    model.add_module("a", nn.Linear(2, 2))
    model.add_module("a_deeper_act", nn.ReLU())
    model.add_module("b", nn.Linear(2, 2))
    graph = Graph(model)
    assert graph.name_for("a", graph.layer("a").consumers[0]) == "a_deeper2"


@pytest.mark.parametrize(
    "model", [mlp([4, 3, 3]), Functional().eval(), Residual().eval()]
)
def test_inserting_an_identity_keeps_names_flags_and_outputs(model):
    path = next(p for p, m in model.named_modules() if isinstance(m, nn.Linear))
    model.to(torch.float64).train()
    graph = Graph(model)
    reader = graph.layer(path).consumers[0]
    edited = graph.inserted(reader, {"new": nn.Identity()}, reader.module)
    x = torch.randn(
        3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(edited(x), model(x))
    assert set(edited.state_dict()) == set(model.state_dict())
    assert all(module.training for module in edited.modules())
    assert "new" in dict(edited.named_modules())
    assert (type(model) is nn.Sequential) == (type(edited) is nn.Sequential)


def test_nested_sequentials_stay_so():
    model = nn.Sequential(mlp([4, 3]), nn.Sequential(nn.ReLU(), mlp([3, 2])))
    graph = Graph(model)
    reader = graph.layer("0.0").consumers[0]
    name = graph.name_for("0.0", reader)
    edited = graph.inserted(reader, {name: nn.Identity()}, reader.module)
    assert name == "1.1.0_0_deeper"
    assert [*dict(edited[1][1].named_children())] == ["0_0_deeper", "0"]
    assert type(edited) is type(edited[1][1]) is nn.Sequential


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, mask=None, scale=2.0):
        h = torch.relu(self.first(x)) * scale
        if mask is not None:
            h = h * mask
        return self.last(torch.relu(h))


@pytest.mark.parametrize("given", [(), ("x", "mask")])
def test_arguments_with_defaults_stay_at_them_unless_the_data_give_them(given):
    model = Optional().eval()
    graph = Graph(model, given=given)
    readers = []
    start = next(n for n in graph.graph.nodes if "relu_1" in n.name)
    graph._places._read_by(start, readers, [], [])
    reader = readers[0]
    edited = graph.inserted(reader, {"new": nn.Identity()}, reader.module)
    x, mask = torch.ones(2, 4), torch.tensor([1.0, 0, 0, 1, 0])
    arguments = {"x": x, "mask": mask} if given else {"x": x}
    assert torch.equal(edited(**arguments), model(**arguments))
    if not given:
        with pytest.raises(AssertionError, match="mask"):
            edited(x, mask)


def test_containers_keep_their_place_in_an_edited_model():
    model = Residual().eval()
    graph = Graph(model)
    reader = graph.layer("block1.fc1").consumers[0]
    edited = graph.inserted(reader, {"block1.new": nn.Identity()}, reader.module)
    again = Graph(edited).layer("block1")
    assert type(again.activation) is nn.ReLU
    assert [c.path for c in again.consumers] == ["block2.fc1"]
    edited.meta.clear()
    with pytest.raises(LayerError, match="last layer inside"):
        Graph(edited).layer("block1")


@pytest.mark.parametrize(
    ("model", "first", "reader"),
    [
        (mlp([4, 3, 3, 2], nn.Identity), "2", "4"),
        (Functional().eval(), "fc3", "fc4"),
    ],
)
def test_calls_are_removed_with_what_reads_their_shape(model, first, reader):
    graph = Graph(model)
    layer = graph.layer(first)
    (affine,) = layer.consumers
    chain = [layer.producer.node, *layer.before]
    if layer.features is not chain[-1]:
        chain.append(layer.features)
    chain += layer.between
    merged = nn.Linear(layer.producer.module.in_features, affine.module.out_features)
    merged.to(affine.module.weight)
    edited = graph.removed(chain, affine, merged)
    assert first not in dict(edited.named_modules())
    assert edited.get_submodule(reader) is merged
    assert edited(torch.ones(5, 4).to(next(edited.parameters()))).shape[0] == 5


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        h = F.relu(F.max_pool2d(self.conv1(x), 2))
        return self.fc(torch.tanh(self.conv2(F.avg_pool2d(h, 2))).mean((2, 3)))


def test_pooling_is_passed_on_both_sides_of_an_activation():
    graph = Graph(Pooled().eval())
    first, second = graph.layer("conv1"), graph.layer("conv2")
    assert isinstance(first.activation, nn.ReLU)
    assert [c.path for c in first.consumers] == ["conv2"]
    assert [c.path for c in second.consumers] == ["fc"]
    assert [affine.path for affine in graph.affines] == ["conv1", "conv2", "fc"]


class Normed(Calls):
    """Reads the weights of a layer by themselves."""

    def forward(self, x):
        return super().forward(x) * self.first.weight.norm()


def test_layers_whose_weights_do_more_than_their_calls_are_refused():
    hooked, pruned = (Calls(torch.tanh) for _ in range(2))
    hooked.first.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    prune.l1_unstructured(pruned.first, "weight", 0.5)
    with torch.no_grad():
        pruned(torch.zeros(1, 2))
    for model, message in (
        (hooked, "no hooks"),
        (pruned, "prune.remove"),
        (Normed(torch.tanh), "reads first.weight itself"),
    ):
        graph = Graph(model)
        with pytest.raises(EditError, match=message):
            graph.check_own(graph.layer("first").producer)
        graph.check_own(graph.layer("last").producer)


def test_what_cannot_be_copied_is_told():
    pruned = Calls(torch.tanh)
    prune.l1_unstructured(pruned.first, "weight", 0.5)
    with pytest.raises(EditError, match="Those of first compute some"):
        Graph(pruned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(EditError, match="Run the model on a batch first"):
        Graph(lazy)
