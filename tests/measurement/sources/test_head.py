import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from layerpeel._checks import HeadError, NonFiniteError
from layerpeel.measurement import measure
from layerpeel.measurement.sources.batches import unpack
from layerpeel.measurement.sources.head import find_head
from tests.measurement.models import HEADS, MODELS, CalledTwice, Wrapped, mlp
from tests.measurement.reference import Reference, assert_agrees


def inputs_of(model, module, x):
    """What a module was given, caught by a hook of the test's own."""
    seen = []
    handle = module.register_forward_hook(
        lambda m, args, out: seen.append(args[0].clone())
    )
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize("name", MODELS)
def test_head_is_found_and_its_inputs_are_the_features(name, dtype):
    model, batches = MODELS[name]().to(dtype).eval(), MODELS[name].data()
    batches = [(x.to(dtype), y) for x, y in batches]
    m = measure(model, batches)
    assert m.head == HEADS[name]
    head = model.get_submodule(m.head)
    W, b = head.weight.detach().double(), head.bias
    with torch.no_grad():
        z = torch.cat([model(x) for x, _ in batches]).double()
    if name == "tokens":
        h = torch.cat([model.features(x).detach() for x, _ in batches])
    elif name.startswith("called_twice"):
        which = 0 if model.main_first else 1
        h = torch.cat([inputs_of(model, head, x)[which] for x, _ in batches])
    else:
        h = torch.cat([inputs_of(model, head, x)[0] for x, _ in batches])
    y = torch.cat([y for _, y in batches])
    assert torch.equal(m.weight, W)
    assert (m.bias is None) == (b is None)
    assert_agrees(m, Reference(h.double(), y, W, z))


@pytest.mark.parametrize("name", MODELS)
def test_naming_the_head_gives_the_same(name):
    model, batches = MODELS[name](), MODELS[name].data()
    named, found = measure(model, batches, head=HEADS[name]), measure(model, batches)
    assert named.to_dict() == found.to_dict()


def test_last_matching_layer_wins():
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 4, bias=False)
            nn.init.eye_(self.last.weight)

        def forward(self, x):
            return self.last(self.first(x))

    assert measure(Same(), MODELS["linear"].data()).head == "last"
    assert measure(Same(), MODELS["linear"].data(), head="first").head == "first"


def test_shared_head_can_be_named_by_each_of_its_paths():
    model = nn.Sequential(nn.Linear(5, 4))
    model.alias = model[0]
    model.forward = model[0].forward_twice = lambda x: nn.Module.__call__(model[0], x)
    assert measure(model, MODELS["linear"].data(), head="alias").head == "alias"


def test_parametrized_heads_have_their_effective_weight():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), weight_norm(nn.Linear(6, 4)))
    m = measure(model, MODELS["linear"].data())
    assert m.head == "2"
    assert torch.equal(m.weight, model[2].weight.detach().double())


def test_autocast_is_within_tolerance():
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        m = measure(model, MODELS["linear"].data())
    assert m.head == "2"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [8, 512, 4096])
def test_wide_heads_of_any_precision_match(width, dtype):
    g = torch.Generator().manual_seed(0)
    head = nn.Linear(width, 10).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(10, width, generator=g))
    x = (torch.randn(64, width, generator=g) + 3).to(dtype)
    assert find_head(head.eval(), unpack((x, torch.arange(64) % 10))).path == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda z: z * 1.1, "differs from the logits by up to"),
        (lambda z: z + 0.1, "differs from the logits by up to"),
        (lambda z: z.log_softmax(1), "the model returns the log_softmax of its output"),
        (lambda z: z.softmax(1), "the model returns the softmax of its output"),
        (lambda z: z.sigmoid(), "the model returns the sigmoid of its output"),
        (lambda z: z.flip(1), "differs"),
    ],
    ids=["scaled", "shifted", "log_softmax", "softmax", "sigmoid", "permuted"],
)
def test_outputs_that_are_not_the_logits_are_refused(change, match, dtype):
    model = Wrapped(mlp().to(dtype), change)
    batches = [(x.to(dtype), y) for x, y in MODELS["mlp"].data()]
    with pytest.raises(HeadError, match=match) as error:
        measure(model, batches)
    text = str(error.value)
    assert "'model.6' (4, 6)" in text
    assert "'model.0' (8, 5): it has 8 outputs, and the model returns 4 logits" in text
    assert "head='module.path'" in text
    assert "measure_features" in text
    with pytest.raises(HeadError, match=r"`head` must give the logits"):
        measure(model, batches, head="model.6")


class Cosine(nn.Linear):
    """A linear layer by type that is none by what it computes."""

    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), self.weight, self.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_heads_that_are_not_affine_are_refused(dtype):
    model = nn.Sequential(nn.Linear(5, 6), Cosine(6, 4)).to(dtype)
    batches = [((4 * x).to(dtype), y) for x, y in MODELS["mlp"].data()]
    for head in (None, "1"):
        with pytest.raises(HeadError, match=r"not W h \+ b.*no plain linear map"):
            measure(model, batches, head=head)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(5, 4, 1)

    def forward(self, x):
        return self.conv(x[:, :, None])[:, :, 0]


def test_models_without_linear_layers_are_told_so():
    with pytest.raises(
        HeadError, match=r"nn.Linear as its head; it has none.*measure_features"
    ):
        measure(Conv(), MODELS["linear"].data())


def test_layers_off_the_path_are_told_so():
    model = mlp()
    model.spare = nn.Linear(3, 4)
    model.forward = lambda x: model[:7](x) * 2
    with pytest.raises(HeadError, match=r"'spare' \(4, 3\): it was not called"):
        measure(model, MODELS["mlp"].data())


@pytest.mark.parametrize(
    ("head", "match"),
    [
        ("7", r"got '7', and there is none.*Linear layers: '6', '4', '0'"),
        ("5", "it is a ReLU"),
        ("fc", "there is none"),
        ("4", r"'4' \(6, 8\): it has 6 outputs, and the model returns 4 logits"),
    ],
)
def test_wrong_names_are_refused(head, match):
    with pytest.raises(HeadError, match=match):
        measure(mlp(), MODELS["mlp"].data(), head=head)


def test_misspelt_names_get_a_suggestion():
    with pytest.raises(HeadError, match="Did you mean 'score'"):
        measure(MODELS["tokens"](), MODELS["tokens"].data(), head="scores")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_classes": 3}, r"it has 4, and `num_classes` is 3"),
        ({"num_classes": 5}, r"it has 4, and `num_classes` is 5"),
        ({"class_names": ["a", "b"]}, r"it has 4, and `class_names` has length 2"),
        ({"num_classes": 4, "class_names": ["a"] * 5}, r"`class_names` has length 5"),
    ],
)
def test_other_numbers_of_classes_are_refused(kwargs, match):
    with pytest.raises(HeadError, match=match):
        measure(mlp(), MODELS["mlp"].data(), **kwargs)


def test_one_output_is_refused():
    batches = [(x, y % 1) for x, y in MODELS["linear"].data()]
    with pytest.raises(HeadError, match="at least 2 outputs, one per class; got 1"):
        measure(nn.Linear(5, 1), batches)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_non_finite_heads_are_refused(name):
    model = mlp()
    with torch.no_grad():
        getattr(model[6], name).view(-1)[1] = torch.nan
    with pytest.raises(NonFiniteError, match=f"head's {name} must be finite; 1 of its"):
        measure(model, MODELS["mlp"].data())


def test_a_path_that_changes_with_the_data_is_refused():
    class Fickle(CalledTwice):
        def forward(self, x):
            return super().forward(x) * (1 if len(x) == 8 else 2)

    batches = MODELS["linear"].data(n=20)
    with pytest.raises(HeadError, match="on every batch; on one it does not"):
        measure(Fickle(True), batches)


def test_many_layers_are_cut():
    layers = [nn.Linear(5, 5) for _ in range(20)]
    model = Wrapped(nn.Sequential(*layers, nn.Linear(5, 4)), lambda z: 2 * z)
    with pytest.raises(HeadError, match="and 9 more"):
        measure(model, MODELS["linear"].data())


class Pair(nn.Linear):
    """Returns its bias apart, as some parallel layers do."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight), self.bias


def test_linear_layers_that_return_something_else_are_refused():
    model = Wrapped(Pair(5, 4), lambda pair: pair[0])
    with pytest.raises(HeadError, match=r"'model' \(4, 5\): it returns a tuple"):
        measure(model, MODELS["linear"].data())
