import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import LabelError, LayerError, NonFiniteError
from layerpeel.measurement.layers.observer import LayerObserver
from layerpeel.measurement.layers.profile import COLUMNS
from tests.measurement.layers.networks import (
    CLASSES,
    SharedReLU,
    Swish,
    Transformer,
    cnn,
    data,
    mlp,
    observed,
    reference,
    seeded,
    unit_reference,
)


def assert_metrics(layer, expected, rel=1e-9):
    for name, value in expected.items():
        assert getattr(layer, name)() == pytest.approx(value, rel=rel), name


def pooled(h, axis):
    """Features and observations of a map, in float64 loops over positions."""
    rows = h.double().movedim(axis, -1).flatten(1, -2)
    return rows.mean(1), rows.flatten(0, 1)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_layers_of_an_mlp(batch):
    model = seeded(mlp).double()
    x, y = data((5,))
    x = x.double()
    profile = observed(model, x, y, batch)
    assert profile.paths == ("0", "1", "3", "4", "5")
    assert profile.kinds == ("Linear", "ReLU", "Linear", "GELU", "Linear")
    assert profile.widths().tolist() == [8, 8, 6, 6, 4]
    before = x
    for path, module in model.named_children():
        after = module(before).detach()
        if path in profile.paths:
            assert_metrics(profile[path], reference(after, y))
            assert profile[path].num_samples == 40
        if path in ("1", "4"):
            assert_metrics(profile[path], unit_reference(before, after))
        before = after


@pytest.mark.parametrize("maps", ["pooled", "flattened"])
def test_layers_of_a_convolutional_network(maps):
    model = seeded(cnn)
    x, y = data((1, 7, 7))
    profile = observed(model, x, y, batch=9, maps=maps)
    assert profile.paths == ("0", "1", "2", "3", "4", "7")
    shapes = {}
    outer = x
    for path, module in model.named_children():
        inner, outer = outer, module(outer.clone()).detach()
        if path not in profile.paths:
            continue
        if maps == "pooled" and outer.ndim == 4:
            features, after = pooled(outer, 1)
            before = pooled(inner, 1)[1]
        else:
            features = after = outer.flatten(1)
            before = inner.flatten(1)
        shapes[path] = features.shape[1]
        assert_metrics(profile[path], reference(features, y), rel=1e-6)
        if path in ("2", "4"):
            assert_metrics(profile[path], unit_reference(before, after), rel=1e-6)
    assert profile.widths().tolist() == list(shapes.values())


def test_layers_of_a_transformer():
    model = seeded(Transformer)
    x, y = data((3, 6))
    profile = observed(model, x, y, batch=10)
    # What takes no part is said: positions have no rows of samples, the projection is
    # applied without a call, and splitting is no nonlinearity.
    assert profile.paths == ("norm", "up", "act", "down", "head")
    left_out = dict(text.split(": ") for text in profile.left_out)
    assert left_out == {
        "positions": (
            "its output has 3 rows for 10 samples, and the first axis must be that of "
            "samples"
        ),
        "attention.out_proj": "it was not called",
        "split": "it has no parameters, and does not keep the shape",
    }
    before = {}
    hooks = [
        module.register_forward_hook(
            lambda m, a, out, n=n: before.update({n: (a[0], out)})
        )
        for n, module in model.named_children()
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    for path in ("norm", "up", "act", "down"):
        assert_metrics(profile[path], reference(pooled(before[path][1], 2)[0], y), 1e-5)
    inputs, outputs = (pooled(value, 2)[1] for value in before["act"])
    assert_metrics(profile["act"], unit_reference(inputs, outputs), 1e-6)
    flat = observed(model, x, y, layers=["up"], maps="flattened")
    assert_metrics(flat["up"], reference(before["up"][1].flatten(1), y), 1e-5)


def test_the_first_tensor_of_a_tuple_is_the_output():
    model = seeded(Transformer)
    x, y = data((3, 6))
    assert observed(model, x, y, layers=["attention"]).widths().tolist() == [6]


def test_batch_size_does_not_matter():
    model = seeded(cnn)
    x, y = data((1, 7, 7))
    whole, parts = (observed(model, x, y, batch=n) for n in (40, 3))
    for name in COLUMNS:
        torch.testing.assert_close(
            whole.column(name), parts.column(name), rtol=1e-6, atol=1e-9, equal_nan=True
        )


class InPlace(nn.Module):
    """Every layer's output is overwritten by what follows."""

    def __init__(self):
        super().__init__()
        self.fc1, self.relu = nn.Linear(5, 6), nn.ReLU(inplace=True)
        self.fc2, self.own = nn.Linear(6, 6), Overwriting()
        self.fc3 = nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.fc1(x))
        x += 1
        x = self.own(self.fc2(x))
        x.mul_(3)
        return self.fc3(x)


class Overwriting(nn.Module):
    def forward(self, x):
        return x.clamp_(min=0)


def test_modules_in_place_overwrite_nothing_that_is_recorded():
    model = seeded(InPlace)
    x, y = data((5,))
    profile = observed(model, x, y, batch=8)
    with torch.no_grad():
        a = model.fc1(x)
        b = model.fc2(a.relu() + 1)
    outputs = {"fc1": a, "relu": a.relu(), "fc2": b, "own": b.relu()}
    for path, output in outputs.items():
        assert_metrics(profile[path], reference(output, y), rel=1e-6)
    assert_metrics(profile["relu"], unit_reference(a, a.relu()), rel=1e-6)
    assert_metrics(profile["own"], unit_reference(b, b.relu()), rel=1e-6)


class Flexible(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 3, 3), nn.ReLU()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).mean((2, 3)))


def test_maps_of_any_size_are_pooled_and_refused_flattened():
    model = seeded(Flexible)
    batches = [data((1, n, n), n=8) for n in (5, 7)]

    def run(maps):
        observer = LayerObserver(model, num_classes=CLASSES, maps=maps)
        for x, y in batches:
            with torch.no_grad(), observer:
                model(x)
            observer.fold(y)
        return observer.value()

    assert run("pooled").num_samples == 16
    with pytest.raises(LayerError, match=r"\(8, 3, 3, 3\) and \(8, 3, 5, 5\).*pooled"):
        run("flattened")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = seeded(mlp).to(dtype)
    x, y = data((5,))
    profile = observed(model, x.to(dtype), y)
    with torch.no_grad():
        h = model[1](model[0](x.to(dtype)))
    assert profile["1"].dtype == str(dtype).removeprefix("torch.")
    expected = reference(h, y)
    del expected[
        "numerical_rank"
    ]  # what rounding to half precision fills counts as zero
    assert_metrics(profile["1"], expected)
    assert 1 <= profile["1"].numerical_rank() <= reference(h, y)["numerical_rank"]


def test_the_model_is_left_as_it_was():
    model = seeded(mlp)
    x, _ = data((5,))
    observer = LayerObserver(model, num_classes=CLASSES)
    with pytest.raises(RuntimeError, match="shapes"), observer:
        model(x[:, :3])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with pytest.raises(LayerError, match="new observer"):
        observer.value()


def test_a_forgotten_fold_is_noticed():
    model = seeded(mlp)
    x, _ = data((5,))
    observer = LayerObserver(model, num_classes=CLASSES)
    with torch.no_grad(), observer:
        model(x)
    with pytest.raises(LayerError, match="`fold`"):
        observer.value()


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.spare = nn.Linear(5, 4), nn.Linear(5, 4)
        self.alias = self.fc

    def forward(self, x):
        return self.fc(x) if len(x) != 3 else self.spare(x)


def test_layers_called_more_than_once_are_refused():
    x, y = data((1, 7, 7))
    match = r"layer 'relu' \(ReLU\) 2 times.*layers=\[nn.Conv2d, nn.Linear\]"
    for layers in ("all", ["relu"], nn.ReLU):
        with pytest.raises(LayerError, match=match):
            observed(seeded(SharedReLU), x, y, layers=layers)
    profile = observed(seeded(SharedReLU), x, y, layers=[nn.Conv2d, nn.Linear])
    assert profile.paths == ("conv1", "conv2", "fc")


def test_a_module_of_two_names_is_one_layer():
    x, y = data((5,))
    assert observed(seeded(Unused), x, y).paths == ("fc",)
    assert observed(seeded(Unused), x, y, layers=["alias"]).paths == ("alias",)
    twice = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
    twice.append(twice[0])
    with pytest.raises(LayerError, match=r"layer '0' \(Linear, also '2'\) 2 times"):
        observed(twice, x, y)


def test_layers_never_called():
    x, y = data((5,))
    with pytest.raises(
        LayerError, match=r"'spare' \(Linear\) does not: it was not call"
    ):
        observed(seeded(Unused), x, y, layers=["fc", "spare"])
    assert observed(seeded(Unused), x, y).left_out == ("spare: it was not called",)


@pytest.mark.parametrize("sizes", [(8, 3), (3, 8)])
def test_layers_called_for_some_batches_are_refused(sizes):
    x, y = data((5,), n=11)
    with pytest.raises(LayerError, match="for every batch or for none"):
        observed(seeded(Unused), x, y, batch=sizes)


def test_rows_that_are_no_samples_are_refused():
    model = seeded(Transformer)
    x, y = data((3, 6))
    with pytest.raises(LayerError, match=r"'positions'.* 3 rows for 16 samples"):
        observed(model, x, y, layers=["positions"])
    with pytest.raises(LayerError, match=r"No layer can be measured: positions"):
        observed(model, x, y, layers=nn.Embedding)


class OneDimensional(nn.Module):
    """Positions last, then tokens: the same number of axes means two things."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv1d(2, 5, 3, padding=1), nn.ReLU()
        self.fc, self.gelu = nn.Linear(5, 7), nn.GELU()
        self.unclear = nn.Tanh()
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = self.gelu(self.fc(x.transpose(1, 2)))
        return self.head(self.unclear(x + 1).mean(1))


def test_features_lie_where_the_layer_before_has_them():
    model = seeded(OneDimensional)
    x, y = data((2, 9))
    profile = observed(model, x, y, layers=["conv", "act", "fc", "gelu"])
    assert profile.widths().tolist() == [5, 5, 7, 7]
    with pytest.raises(LayerError, match=r"'unclear'.*\(16, 9, 7\).*1-d convolutions"):
        observed(model, x, y)
    flat = observed(model, x, y, layers=["unclear"], maps="flattened")
    assert flat.widths().tolist() == [63]


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.act = nn.Conv2d(1, 3, 3), nn.Linear(3, 6), nn.GELU()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.fc(self.conv(x).permute(0, 2, 3, 1)))
        return self.head(x.mean((1, 2)))


def test_channels_may_be_last():
    x, y = data((1, 7, 7))
    profile = observed(seeded(ChannelsLast), x, y)
    assert profile.widths().tolist() == [3, 6, 6, 4]


class Exploding(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(5, 6), Swish(), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc2(F.relu(self.act(self.fc1(x))))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_counted_by_class_and_layer(bad):
    model = seeded(Exploding)
    x, y = data((5,))
    x[[1, 5, 6]] = bad
    match = r"layer 'fc1' \(Linear\): 3 samples .*by class: b \(2\), c \(1\)\. 2 more"
    with pytest.raises(NonFiniteError, match=match):
        observed(model, x, y, class_names=["a", "b", "c", "d"])


def test_overflow_in_half_precision_names_the_layer():
    model = seeded(mlp).half()
    with torch.no_grad():
        model[3].weight.fill_(6e4)
    x, y = data((5,))
    with pytest.raises(NonFiniteError, match=r"'3' \(Linear\): \d+ samples.*float16"):
        observed(model, x.half(), y)


def test_wide_layers_have_no_covariance():
    x, y = data((5,))
    profile = observed(seeded(mlp), x, y, covariance_limit=6)
    assert [layer.covariance is None for layer in profile.layers] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_labels_are_checked():
    x, y = data((5,))
    with pytest.raises(LabelError, match=r"\[0, 3\)"):
        observed(seeded(mlp), x, y, classes=3)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="Did you mean 'pooled'"):
        LayerObserver(seeded(mlp), num_classes=2, maps="pool")
    with pytest.raises(ValueError, match="covariance_limit"):
        LayerObserver(seeded(mlp), num_classes=2, covariance_limit=-1)
    with pytest.raises(LayerError, match="none at 'fc1'"):
        LayerObserver(seeded(mlp), ["fc1"], num_classes=2)
