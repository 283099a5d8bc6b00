import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import LayerError, ShapeError
from layerpeel.measurement.sources.layer_tap import LayerTap
from tests.measurement.sources import tapped
from tests.measurement.sources.tapped import built, inputs, same_state, state_of


def looked(model, path, x):
    tap = LayerTap(model, path)
    with torch.no_grad(), tap:
        logits = model(x)
    return tap, logits


def names(tap):
    return [reader.name for reader in tap.consumers]


ACTIVATE = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "x.relu": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "inplace": lambda x: F.relu(x, inplace=True),
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "leaky": lambda x: F.leaky_relu_(x, 0.1),
    "clamp": lambda x: x.clamp(min=0),
}


@pytest.mark.parametrize("activate", ACTIVATE.values(), ids=ACTIVATE)
def test_features_are_what_a_functional_activation_returns(activate):
    model, x = built(lambda: tapped.Functional(activate)).eval(), inputs(5)
    tap, logits = looked(model, "fc1", x)
    with torch.no_grad():
        by_hand = activate(model.fc1(x).view(7, 2, 3))
        assert torch.equal(tap.features, by_hand)
        assert torch.equal(logits, model(x))
    assert tap.activation is not None
    (reader,) = tap.consumers
    assert (reader.name, reader.function, reader.whole) == ("fc2", "linear", True)
    assert reader.weight is model.fc2.weight
    assert reader.bias is model.fc2.bias


MODULES = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Tanh),
    *(nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Mish, nn.PReLU),
    *(nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
    *(nn.Hardsigmoid, nn.RReLU, lambda: nn.Threshold(0.1, 0.0)),
)


@pytest.mark.parametrize("kind", MODULES)
def test_features_are_what_an_activation_module_returns(kind):
    model = nn.Sequential(nn.Linear(5, 6), kind(), nn.Linear(6, 4)).eval()
    x = inputs(5)
    tap, _ = looked(model, "0", x)
    with torch.no_grad():
        assert torch.equal(tap.features, model[1](model[0](x)))
    assert names(tap) == ["2"]


@pytest.mark.parametrize("path", ["0", "1", "2"])
def test_dropout_and_activations_in_place(path):
    model, x = built(tapped.mlp).eval(), inputs(5)
    tap, _ = looked(model, path, x)
    with torch.no_grad():
        assert torch.equal(tap.features, F.relu(model[0](x)))
    assert names(tap) == ["3"]
    assert tap.activation == (None if path == "2" else "relu")


def test_overwritten_without_the_result():
    model, x = built(tapped.InPlace).eval(), inputs(5)
    tap, logits = looked(model, "fc1", x)
    with torch.no_grad():
        assert torch.equal(tap.features, F.relu(model.fc1(x)))
    with torch.no_grad(), tap.replacing(lambda h: h * 2):
        doubled = model(x)
    assert torch.allclose(doubled, 2 * logits - model.fc2.bias, atol=1e-5)


# Network, input, path: who reads the layer, and the activation.
READ = {
    "residual": (tapped.Residual, (5,), "fc1", ["fc2", "add"], "relu"),
    "branch": (tapped.Residual, (5,), "fc2", ["add"], "relu"),
    "in place": (tapped.Accumulating, (5,), "fc1", ["add"], None),
    "other side": (tapped.Accumulating, (5,), "fc2", ["add"], None),
    "gated": (tapped.Gated, (5,), "fc1", ["sigmoid", "mul"], None),
    "norm": (tapped.normed, (5,), "0", ["1"], None),
    "after the norm": (tapped.normed, (5,), "1", ["3"], "relu"),
    "conv": (tapped.cnn, (2, 6, 6), "0", ["1"], None),
    "conv norm": (tapped.cnn, (2, 6, 6), "1", ["3"], "relu"),
    "pooled": (tapped.cnn, (2, 6, 6), "3", ["5"], None),
    "flattened": (tapped.flat_cnn, (2, 4, 4), "0", ["3"], "relu"),
    "tokens": (tapped.Tokens, (4, 3), "up", ["down"], "gelu"),
    "attended": (
        *(tapped.Tokens, (4, 3), "mix"),
        *(["multi_head_attention_forward", "add"], None),
    ),
    "chosen token": (tapped.Tokens, (4, 3), "norm", ["getitem"], None),
    "sibling": (tapped.Halves, (5,), "split", ["first"], None),
    "last": (tapped.mlp, (5,), "5", [], None),
}


@pytest.mark.parametrize(
    ("build", "shape", "path", "read", "activation"), READ.values(), ids=READ
)
def test_who_reads_it(build, shape, path, read, activation):
    model, x = built(build).eval(), inputs(*shape)
    tap, _ = looked(model, path, x)
    by_name = [
        n if n != "attention" else "multi_head_attention_forward" for n in names(tap)
    ]
    assert (by_name, tap.activation) == (read, activation)


@pytest.mark.parametrize(
    ("build", "shape", "path"), [case[:3] for case in READ.values()], ids=READ
)
def test_own_features_leave_the_logits_as_they_are(build, shape, path):
    model, x = built(build).eval(), inputs(*shape)
    tap, logits = looked(model, path, x)
    seen = []
    with (
        torch.no_grad(),
        tap.replacing(lambda h: (seen.append(h.clone()), h.clone())[1]),
    ):
        again = model(x)
    assert torch.equal(again, logits)
    assert torch.equal(seen[0], tap.features)
    with torch.no_grad(), tap.replacing(lambda h: h + 1):
        assert not torch.equal(model(x), logits)


def test_zeros_in_a_hidden_layer_equal_a_forward_by_hand():
    x = inputs(5)
    residual = built(tapped.Residual).eval()
    tap, _ = looked(residual, "fc1", x)
    with torch.no_grad():
        with tap.replacing(torch.zeros_like):
            got = residual(x)
        zero = torch.zeros(7, 6)
        assert torch.equal(got, residual.fc3(zero + F.relu(residual.fc2(zero))))
    adding = built(tapped.Accumulating).eval()
    tap, _ = looked(adding, "fc1", x)
    with torch.no_grad():
        with tap.replacing(torch.zeros_like):
            got = adding(x)
        assert torch.equal(got, adding.fc3(F.relu(zero + adding.fc2(x))))


def test_one_of_several_outputs_is_replaced():
    model, x = built(tapped.Halves).eval(), inputs(5)
    tap, _ = looked(model, "split", x)
    with torch.no_grad():
        with tap.replacing(torch.zeros_like):
            got = model(x)
        by_hand = model.first(torch.zeros(7, 6)) + model.second(
            model.split.fc(x)[:, 6:]
        )
    assert torch.equal(got, by_hand)


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.fc, self.wrap = nn.Linear(5, 4), wrap

    def forward(self, x):
        return self.wrap(self.fc(x))


@pytest.mark.parametrize(
    "wrap", [lambda h: {"ids": 1, "h": h}, lambda h: [None, (h,)], lambda h: (h, h * 2)]
)
def test_nested_outputs_keep_their_form(wrap):
    inner = built(lambda: Wrapped(wrap)).eval()
    model, x = nn.Sequential(inner), inputs(5)
    tap, before = looked(model, "0", x)
    with torch.no_grad(), tap.replacing(torch.zeros_like):
        after = model(x)
    expected = wrap(torch.zeros(7, 4))
    assert type(after) is type(before) is type(expected)
    first = after["h"] if isinstance(after, dict) else after[0]
    first = after[1][0] if first is None else first
    assert torch.equal(first, torch.zeros(7, 4))


def test_a_linear_layer_that_reads_other_rows_is_not_whole():
    model = nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (2, 3)), nn.Linear(3, 4))
    tap, _ = looked(model.eval(), "0", inputs(5))
    (reader,) = tap.consumers
    assert reader.is_linear
    assert not reader.whole


def test_shapes_and_new_tensors_are_no_consumers():
    class Asking(tapped.InPlace):
        def forward(self, x):
            h = self.fc1(x)
            if h.shape[0] == h.size(0) and h.dim() and h.dtype == x.dtype:
                h = h.to(h.device).detach().contiguous().clone()
            return self.fc2(h) + torch.zeros_like(h).sum() + h.new_ones(1)

    tap, _ = looked(built(Asking).eval(), "fc1", inputs(5))
    assert names(tap) == ["fc2"]


ERRORS = {
    "unknown": ("fcl", r"`layer` must be.*none at 'fcl'. Did you mean 'fc'"),
    "twice": ("fc", r"called once.*'fc' \(Linear\) was called 2 times"),
    "never": ("unused", r"'unused' \(ReLU\) was not called"),
    "integers": ("count", r"'count' \(Counting\) returned no tensor of floating"),
}


@pytest.mark.parametrize(("path", "match"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_tapped(path, match):
    model = built(tapped.Shared).eval()
    before = state_of(model)
    with pytest.raises(LayerError, match=match):
        looked(model, path, inputs(5))
    assert same_state(before, state_of(model))


def test_the_model_is_left_alone_whatever_happens():
    model, x = built(tapped.mlp), inputs(5)
    before = state_of(model)
    tap, _ = looked(model, "0", x)
    with pytest.raises(RuntimeError, match="shapes"), tap:
        model(inputs(4))
    with pytest.raises(RuntimeError, match="shapes"), tap.replacing(torch.zeros_like):
        model(inputs(4))
    assert same_state(before, state_of(model))
    with (
        pytest.raises(
            ShapeError, match=r"must have their shape, \(7, 6\); got \(7, 5\)"
        ),
        torch.no_grad(),
        tap.replacing(lambda h: h[:, 1:]),
    ):
        model(x)
    with (
        pytest.raises(ZeroDivisionError),
        torch.no_grad(),
        tap.replacing(lambda h: 1 / 0),
    ):
        model(x)
    assert same_state(before, state_of(model))
    # Nothing listens any more.
    assert torch.overrides._get_current_function_mode_stack() == []


def test_an_error_of_the_function_is_not_taken_for_one_of_the_model():
    class Catching(tapped.InPlace):
        def forward(self, x):
            try:
                return super().forward(x)
            except ValueError:
                return x[:, :4]

    def refuse(h):
        raise ValueError("refused")

    model, x = built(Catching).eval(), inputs(5)
    tap, _ = looked(model, "fc1", x)
    with (
        pytest.raises(ValueError, match="refused"),
        torch.no_grad(),
        tap.replacing(refuse),
    ):
        model(x)


def test_a_path_that_depends_on_the_data_is_refused():
    class Changing(tapped.InPlace):
        def forward(self, x):
            h = self.fc1(x)
            return self.fc2(F.relu(h) if len(x) > 3 else torch.tanh(h))

    model = built(Changing).eval()
    tap, _ = looked(model, "fc1", inputs(5))
    with pytest.raises(LayerError, match="followed by relu, and now by tanh"), tap:
        model(inputs(5, n=3))
    with pytest.raises(LayerError, match="read alike"), tap.replacing(torch.zeros_like):
        model(inputs(5, n=3))


def test_replacing_needs_a_look_first():
    model = built(tapped.mlp).eval()
    tap = LayerTap(model, "0")
    match = "look at a forward pass first"
    with pytest.raises(LayerError, match=match), tap.replacing(torch.zeros_like):
        pass


def test_half_precision_and_inference_mode():
    model, x = built(tapped.mlp).eval().bfloat16(), inputs(5).bfloat16()
    tap = LayerTap(model, "0")
    with torch.inference_mode(), tap:
        logits = model(x)
    assert tap.features.dtype == torch.bfloat16
    with torch.inference_mode(), tap.replacing(lambda h: h.double()):
        assert torch.equal(model(x), logits)
