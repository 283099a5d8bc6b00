import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from layerpeel._checks import (
    BatchError,
    HeadError,
    LabelError,
    LayerError,
    NondeterminismError,
    NonFiniteError,
)
from layerpeel.measurement.clones.layer.model_data import model_data
from tests.measurement.models import FunctionalDropout, ResNet, TokenHead
from tests.measurement.sources import tapped
from tests.measurement.sources.tapped import built, same_state, state_of


def batches(*shape, n=22, size=5, classes=4, seed=3):
    x = tapped.inputs(*shape, n=n, seed=seed)
    y = torch.arange(n) % classes
    return list(zip(x.split(size), y.split(size), strict=True))


def read(data):
    parts = list(data.samples())
    return torch.cat([p.features for p in parts]), torch.cat([p.labels for p in parts])


def decided(model, x):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(x).argmax(1)


def everything(loader):
    return tuple(torch.cat(parts) for parts in zip(*loader, strict=True))


FLAT, NONE = {"maps": "flattened"}, {}
# Network, input, layer, options: features by hand in eval mode.
LAYERS = {
    "head input": (tapped.mlp, (5,), "head input", NONE, lambda m, x: m[:5](x)),
    "feeds the head": (tapped.mlp, (5,), "3", NONE, lambda m, x: m[:5](x)),
    "hidden": (tapped.mlp, (5,), "0", NONE, lambda m, x: m[:3](x)),
    "norm": (tapped.normed, (5,), "0", NONE, lambda m, x: m[0](x)),
    "after norm": (tapped.normed, (5,), "1", NONE, lambda m, x: m[:3](x)),
    "residual": (tapped.Residual, (5,), "fc1", NONE, lambda m, x: F.relu(m.fc1(x))),
    "map": (
        *(tapped.cnn, (2, 6, 6), "1", NONE),
        lambda m, x: m[:3](x).double().mean((2, 3)),
    ),
    "flat map": (tapped.cnn, (2, 6, 6), "1", FLAT, lambda m, x: m[:3](x).flatten(1)),
    "pool": (tapped.cnn, (2, 6, 6), "3", NONE, lambda m, x: m[:5](x).double()),
    "flatten": (tapped.flat_cnn, (2, 4, 4), "0", FLAT, lambda m, x: m[:3](x)),
    "tokens": (
        *(tapped.Tokens, (4, 3), "mix", NONE),
        lambda m, x: m.mix(x).double().mean(1),
    ),
    "flat tokens": (
        tapped.Tokens,
        (4, 3),
        "mix",
        FLAT,
        lambda m, x: m.mix(x).flatten(1),
    ),
    "token head": (TokenHead, (4, 5), "head input", NONE, TokenHead.features),
}
CONSUMERS = {
    "head input": ("5", True),
    "feeds the head": ("5", True),
    "hidden": ("3", False),
    "after norm": ("3", True),
    "pool": ("5", True),
    "flatten": ("3", True),
    "token head": ("score", True),
}


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("cache_bytes", [2**30, 300])
def test_features_are_those_by_hand_however_they_are_kept(case, cache_bytes):
    build, shape, layer, options, by_hand = LAYERS[case]
    model, loader = built(build), batches(*shape)
    before, random = state_of(model), torch.get_rng_state()
    data = model_data(model, loader, layer, cache_bytes=cache_bytes, **options)
    x, y = everything(loader)
    with torch.no_grad():
        expected = by_hand(copy.deepcopy(model).eval(), x)
    for _ in range(2):
        features, labels = read(data)
        assert torch.allclose(features, expected, atol=1e-6)
        assert features.dtype == expected.dtype
        assert torch.equal(labels, y)
    assert (data.layer, data.width, data.count) == (layer, expected.shape[1], 22)
    assert data.eps == 2.0**-23
    assert data.wrong() == int((decided(model, x) != y).sum())
    expected = torch.cov(features.double().T, correction=0)
    assert torch.allclose(data.covariance().matrix, expected, atol=1e-12)
    name = data.consumer and data.consumer.name
    assert (name, data.classifies) == CONSUMERS.get(case, (None, False))
    assert bool(data.cause) == (data.consumer is None)
    assert same_state(before, state_of(model))
    assert torch.equal(random, torch.get_rng_state())


CAUSES = {
    "norm": "a consumer that is no linear layer: batch_norm in '1' reads it",
    "residual": "two consumers read it: fc2 and add",
    "map": "a consumer that is no linear layer: adaptive_avg_pool2d in '3' reads it",
    "tokens": "two consumers read it: multi_head_attention_forward and add",
}


@pytest.mark.parametrize("case", CAUSES)
def test_why_there_is_no_consumer(case):
    build, shape, layer, options, _ = LAYERS[case]
    data = model_data(built(build), batches(*shape), layer, **options)
    assert (
        data.cause.replace("attention and", "multi_head_attention_forward and")
        == (CAUSES[case])
    )


def test_more_causes():
    def cause(model, layer, *shape, **options):
        return model_data(model, batches(*shape), layer, **options).cause

    flat = built(tapped.flat_cnn)
    assert cause(flat, "0", 2, 4, 4).startswith("maps: neurons are channels, the means")
    assert cause(built(tapped.Tokens), "up", 4, 3).startswith(
        "maps: neurons are channels"
    )
    assert cause(built(tapped.mlp), "5", 5).startswith("nothing reads it")
    two = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 3), flat))
    assert cause(two, "0", 2, 6, 6) == (
        "a consumer that is no linear layer: conv2d in '1' reads it"
    )
    split = nn.Sequential(
        nn.Linear(5, 6), nn.Unflatten(1, (2, 3)), nn.Linear(3, 2), nn.Flatten()
    )
    assert cause(split, "0", 5) == "2 does not read its neurons in their order"


def hidden_by_hand(m, x, edit):
    return m[5](m[4](m[3](edit(m[:3](x)))))


def residual_by_hand(m, x, edit):
    h = edit(F.relu(m.fc1(x)))
    return m.fc3(h + F.relu(m.fc2(h)))


def channels_by_hand(m, x, edit):
    return m[3:](edit(m[:3](x).movedim(1, -1)).movedim(-1, 1))


def entries_by_hand(m, x, edit):
    h = m[:3](x)
    return m[3:](edit(h.flatten(1)).reshape(h.shape))


def tokens_by_hand(m, x, edit):
    h = m.mix(x)
    h = h + m.attention(h, h, h, need_weights=False)[0]
    return m.head(m.norm(h + m.down(edit(F.gelu(m.up(h)))))[:, 0])


@pytest.mark.parametrize(
    ("build", "shape", "layer", "options", "by_hand"),
    [
        (tapped.mlp, (5,), "0", NONE, hidden_by_hand),
        (tapped.Residual, (5,), "fc1", NONE, residual_by_hand),
        (tapped.cnn, (2, 6, 6), "1", NONE, channels_by_hand),
        (tapped.cnn, (2, 6, 6), "1", FLAT, entries_by_hand),
        (tapped.Tokens, (4, 3), "up", NONE, tokens_by_hand),
    ],
)
def test_errors_of_an_edited_hidden_layer(build, shape, layer, options, by_hand):
    model, loader = built(build), batches(*shape, n=60, size=20)
    data = model_data(model, loader, layer, **options)
    x, y = everything(loader)
    counts = set()
    for seed in range(6):
        keep = torch.randperm(data.width, generator=torch.Generator().manual_seed(seed))
        mask = (keep < data.width // 2).double()

        def edit(h, mask=mask):
            return h * mask

        with torch.no_grad():
            fixed = copy.deepcopy(model).eval()
            logits = by_hand(fixed, x, lambda h, mask=mask: h * mask.float())
        counts.add(int((logits.argmax(1) != y).sum()))
        assert data.wrong(edit) == int((logits.argmax(1) != y).sum())
    assert len(counts) > 1


def test_errors_of_an_edited_head_input():
    model, loader = built(tapped.mlp), batches(5)
    x, y = everything(loader)
    mask = torch.tensor([1.0, 0, 1, 0, 1, 0])
    for layer in ("head input", "3"):
        data = model_data(model, loader, layer)
        with torch.no_grad():
            fixed = copy.deepcopy(model).eval()
            logits = (fixed[:5](x) * mask) @ fixed[5].weight.T
        assert data.wrong(lambda h: h * mask) == int((logits.argmax(1) != y).sum())


@pytest.mark.parametrize("layer", ["head input", "0", "3"])
def test_a_loader_that_is_read_once(layer):
    model = built(tapped.mlp)
    whole = model_data(model, batches(5), layer)
    data = model_data(model, iter(batches(5)), layer)
    assert torch.equal(read(data)[0], read(whole)[0])
    for edit in (None, torch.zeros_like, lambda h: h * torch.arange(6)):
        assert data.wrong(edit) == whole.wrong(edit)
    match = r"read once.*`cache_bytes` = 300.*iterated again.*larger `cache_bytes`"
    with pytest.raises(BatchError, match=match):
        model_data(model, iter(batches(5)), layer, cache_bytes=300)


def test_a_generator_that_fills_one_buffer():
    def one_buffer():
        buffer = torch.empty(2, 5)
        for x, y in batches(5, n=22, size=2):
            yield buffer.copy_(x), y

    model = built(tapped.mlp)
    whole = model_data(model, batches(5), "0")
    assert model_data(model, one_buffer(), "0").wrong(torch.sin) == whole.wrong(
        torch.sin
    )


def test_a_loader_that_shuffles_is_read_in_one_order():
    x, y = everything(batches(5))
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    data = model_data(built(tapped.mlp), loader, "0", cache_bytes=0)
    first = read(data)
    torch.rand(3), np.random.rand(3)
    assert all(map(torch.equal, first, read(data)))
    own = torch.Generator().manual_seed(0)
    shuffled = DataLoader(
        TensorDataset(x, y), batch_size=4, shuffle=True, generator=own
    )
    data = model_data(built(tapped.mlp), shuffled, "0", cache_bytes=0)
    with pytest.raises(BatchError, match=r"`loader`.*same order.*shuffle=False"):
        read(data)


def test_two_data_sets_of_one_model_can_be_read_side_by_side():
    model = built(tapped.mlp)
    loader = batches(5)
    one, two = (
        model_data(model, part, "0", cache_bytes=0) for part in (loader, loader[:2])
    )
    before = state_of(model)
    for a, b in zip(one.samples(), two.samples(), strict=False):
        # In between, the model is the caller's.
        assert same_state(before, state_of(model))
        assert torch.equal(a.features, b.features)
    assert same_state(before, state_of(model))


def test_a_pass_that_is_left_early_changes_nothing():
    model = built(tapped.mlp)
    before, random = state_of(model), torch.get_rng_state()
    data = model_data(model, batches(5), "0", cache_bytes=0)
    next(data.samples())
    assert same_state(before, state_of(model))
    assert torch.equal(random, torch.get_rng_state())
    assert len(read(data)[1]) == 22


def nan_inside(loader):
    x = loader[1][0].clone()
    x[2] = torch.nan
    return [loader[0], (x, loader[1][1])]


class Wide(nn.Module):
    """Gives as many features as there are samples."""

    def __init__(self):
        super().__init__()
        self.join, self.head = tapped.Split(), nn.Linear(6, 4)

    def forward(self, x):
        first, _ = self.join(x)
        return self.head(first)


MLP = tapped.mlp
ERRORS = {
    "nan": (
        MLP,
        dict(loader=nan_inside(batches(5))),
        NonFiniteError,
        r"1 of 10.*3 \(1\)",
    ),
    "labels": (MLP, dict(loader=batches(5, classes=5)), LabelError, r"\[0, 4\)"),
    "classes": (MLP, dict(num_classes=5), HeadError, "4 classes apart.* is 5"),
    "path": (MLP, dict(layer="33"), LayerError, "none at '33'. Did you mean '3'"),
    "shared": (tapped.Shared, dict(layer="fc"), LayerError, "called 2 times"),
    "unused": (tapped.Shared, dict(layer="unused"), LayerError, "not called"),
    "maps": (MLP, dict(maps="mean"), ValueError, "`maps` must be one of"),
    "head": (MLP, dict(layer="0", head="0"), HeadError, "`head` must give the logits"),
    "empty": (MLP, dict(loader=[]), BatchError, "at least one sample"),
    "random": (
        FunctionalDropout,
        dict(layer="fc1"),
        NondeterminismError,
        "twice in eval",
    ),
    "random head": (FunctionalDropout, NONE, NondeterminismError, "twice in eval"),
    "no head": (tapped.Gated, dict(head="fc9"), HeadError, "path of an nn.Linear"),
}


@pytest.mark.parametrize(
    ("build", "changed", "kind", "match"), ERRORS.values(), ids=ERRORS
)
def test_bad_input(build, changed, kind, match):
    model = built(build)
    before, random = state_of(model), torch.get_rng_state()
    given = {"loader": batches(5), "layer": "head input"} | changed
    with pytest.raises(kind, match=match):
        model_data(model, given.pop("loader"), given.pop("layer"), **given)
    assert same_state(before, state_of(model))
    assert torch.equal(random, torch.get_rng_state())


def test_an_edit_that_fails_leaves_the_model_alone():
    model = built(tapped.mlp)
    data = model_data(model, batches(5), "0")
    before = state_of(model)
    with pytest.raises(ZeroDivisionError):
        data.wrong(lambda h: 1 / 0)
    assert same_state(before, state_of(model))
    with pytest.raises(ValueError, match="`edit` must keep the shape"):
        data.wrong(lambda h: h[:, 1:])
    assert same_state(before, state_of(model))


def test_one_class_in_the_data_is_enough():
    loader = [(x, torch.zeros_like(y)) for x, y in batches(5)]
    data = model_data(built(tapped.mlp), loader, "0")
    assert (data.num_classes, data.count) == (4, 22)
    assert 0 <= data.wrong() <= 22


def test_maps_of_changing_size():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(3, 4))
    loader = [batches(2, s, s, n=5)[0] for s in (5, 6)]
    pooled = model_data(model, loader, "0.0")
    assert (pooled.width, pooled.count, len(read(pooled)[0])) == (3, 10, 10)
    with pytest.raises(LayerError, match=r"gave 27, then 48.*`maps='pooled'`"):
        model_data(model, loader, "0.0", maps="flattened")


def test_a_network_without_a_linear_head_has_hidden_layers():
    model = built(ResNet)
    model.fc = nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(1))
    data = model_data(model, batches(3, 6, 6), "stem")
    x, y = everything(batches(3, 6, 6))
    assert data.wrong() == int((decided(model, x) != y).sum())
    with pytest.raises(HeadError, match="log_softmax"):
        model_data(model, batches(3, 6, 6))


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv1d(3, 4, 1), Mix(), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.mix(self.conv(x)).mean(2))


class Mix(nn.Module):
    def forward(self, x):
        return x.repeat(1, 1, 2)


def test_what_the_neurons_are_must_be_clear():
    model = built(Sequences)
    assert model_data(model, batches(3, 5), "conv").width == 4
    with pytest.raises(LayerError, match=r"'mix'.*1-d convolutions"):
        model_data(model, batches(3, 5), "mix")
    assert model_data(model, batches(3, 5), "mix", maps="flattened").width == 40
