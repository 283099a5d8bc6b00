import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from layerpeel._checks import (
    BatchError,
    LossError,
    NondeterminismError,
    NonFiniteError,
)
from layerpeel.landscape import Risk
from tests.landscape.networks import (
    Attention,
    Residual,
    WithLogits,
    classification,
    convolutional,
    normal,
    normalised,
    perceptron,
    reference,
    seeded,
)

MODELS = [Residual, convolutional, normalised, WithLogits, Attention]
LOSSES = {
    "cross-entropy": F.cross_entropy,
    "squared": lambda f, y: F.mse_loss(f, F.one_hot(y, 3).to(f)),
}


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def build(request):
    return request.param


@pytest.fixture(params=LOSSES, ids=str)
def loss_fn(request):
    return LOSSES[request.param]


def test_value_gradient_and_hessian_are_those_of_autograd(build, loss_fn):
    model, data = seeded(build), classification(build)
    risk = Risk.of(model, loss_fn, data)
    oracle, start = reference(model, loss_fn, data)
    assert torch.equal(risk.point, start)
    vector = start.clone().requires_grad_()
    # The fast kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        value = oracle(vector)
    (gradient,) = torch.autograd.grad(value, vector, create_graph=True)
    assert abs(risk.value() - value.item()) <= 1e-12
    torch.testing.assert_close(risk.gradient(), gradient.detach(), rtol=0, atol=1e-12)
    rows = [torch.autograd.grad(g, vector, retain_graph=True)[0] for g in gradient]
    hessian = torch.stack(rows)
    torch.testing.assert_close(risk.hessian(), hessian, rtol=0, atol=1e-10)
    v = normal(risk.size, 2)
    torch.testing.assert_close(risk.product(v), hessian @ v, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        risk.product(v[:, 0]), hessian @ v[:, 0], rtol=0, atol=1e-10
    )


def test_gradients_and_products_are_finite_differences_elsewhere():
    model, data = seeded(Residual), classification(Residual)
    risk = Risk.of(model, F.cross_entropy, data)
    at, v, h = risk.point + 0.3 * normal(risk.size), normal(risk.size, seed=3), 1e-5
    slope = (risk.value(at + h * v) - risk.value(at - h * v)) / (2 * h)
    assert slope == pytest.approx(float(risk.gradient(at) @ v), rel=1e-7)
    change = (risk.gradient(at + h * v) - risk.gradient(at - h * v)) / (2 * h)
    torch.testing.assert_close(risk.product(v, at), change, rtol=1e-6, atol=1e-8)


def test_curvature_is_the_quotient_within_its_bound(build):
    model, data = seeded(build), classification(build)
    risk = Risk.of(model, F.cross_entropy, data)
    oracle, start = reference(model, F.cross_entropy, data)
    v = normal(risk.size)
    found, step = risk.curvature(v), torch.zeros((), dtype=torch.float64)
    step.requires_grad_()
    unit = v / v.norm()
    with sdpa_kernel(SDPBackend.MATH):
        value = oracle(start + step * unit)
    (slope,) = torch.autograd.grad(value, step, create_graph=True)
    (expected,) = torch.autograd.grad(slope, step)
    assert abs(found.value - expected.item()) <= found.rounding
    assert found.rounding <= 1e-11


def test_the_split_into_batches_does_not_matter():
    model = seeded(Residual)
    x, y = (torch.cat(parts) for parts in zip(*classification(Residual), strict=True))
    whole = Risk.of(model, F.cross_entropy, [(x, y)])
    for sizes in ([1] * 11, [10, 1], [4, 4, 3]):
        parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
        split = Risk.of(model, F.cross_entropy, [*parts, (x[:0], y[:0])])
        assert split.samples == 11
        assert split.value() == pytest.approx(whole.value(), abs=1e-14)
        torch.testing.assert_close(split.gradient(), whole.gradient())
        torch.testing.assert_close(split.hessian(), whole.hessian())


def test_a_sum_is_a_sum_over_all_samples():
    model, data = seeded(Residual), classification(Residual)

    def summed(f, y):
        return F.cross_entropy(f, y, reduction="sum")

    mean = Risk.of(model, F.cross_entropy, data)
    total = Risk.of(model, summed, data, reduction="sum")
    assert total.value() == pytest.approx(11 * mean.value())
    torch.testing.assert_close(total.gradient(), 11 * mean.gradient())


def test_tied_weights_are_one_variable_and_frozen_ones_none():
    model = seeded(Residual)
    model.head.bias.requires_grad_(False)
    risk = Risk.of(model, F.cross_entropy, classification(Residual))
    assert risk.parameters.names == (
        "stem.weight", "stem.bias", "block.weight", "block.bias", "head.weight",
    )  # fmt: skip
    assert "frozen" in risk.notes[0]


def test_nothing_of_the_caller_changes():
    model = seeded(convolutional).train()
    model[5].eval()
    model[0].weight.requires_grad_(False)
    F.cross_entropy(model(torch.randn(4, 1, 4, 4)), torch.zeros(4).long()).backward()
    before = deepcopy(model)
    gradients = [p.grad for p in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    fast = torch.backends.mha.get_fastpath_enabled()
    x, y = classification(convolutional)[0]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=3, shuffle=True
    )
    with torch.no_grad():
        risk = Risk.of(model, F.cross_entropy, loader)
        risk.curvature(risk.gradient())
        risk.hessian()
        assert not torch.is_grad_enabled()
    for (name, old), (_, new) in zip(
        before.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert torch.equal(old, new), name
    assert [m.training for m in model.modules()] == [
        m.training for m in before.modules()
    ]
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert all(a is p.grad for a, p in zip(gradients, model.parameters(), strict=True))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert fast == torch.backends.mha.get_fastpath_enabled()


def test_data_are_read_once_and_copied():
    model, data = seeded(Residual), classification(Residual)
    risk = Risk.of(model, F.cross_entropy, iter(data))
    value = risk.value()
    data[0][0].zero_()
    next(model.parameters()).data.zero_()
    assert risk.value() == value


def test_works_in_inference_mode_and_on_float32():
    model, data = seeded(Residual), classification(Residual)
    data = [(x.float(), y) for x, y in data]
    outside = Risk.of(model, F.cross_entropy, data).hessian()
    with torch.inference_mode():
        inside = Risk.of(model, F.cross_entropy, data).hessian()
    assert torch.equal(outside, inside)
    rough = Risk.of(model, F.cross_entropy, data, torch.float32)
    torch.testing.assert_close(rough.hessian(), outside, rtol=0, atol=1e-5)
    assert rough.curvature(normal(rough.size)).rounding > 1e-9


class OnlyReverse(torch.autograd.Function):
    """The square, by a rule that has no forward mode and no batching."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class Squares(nn.Sequential):
    def forward(self, x):
        return self[1](OnlyReverse.apply(self[0](x)))


def test_what_has_no_forward_mode_is_differentiated_in_reverse():
    model = seeded(lambda: Squares(nn.Linear(3, 4), nn.Linear(4, 3)))
    data = classification(Squares)
    risk = Risk.of(model, F.cross_entropy, data)
    oracle, start = reference(model, F.cross_entropy, data)
    hessian = torch.autograd.functional.hessian(oracle, start)
    torch.testing.assert_close(risk.hessian(), hessian, rtol=0, atol=1e-10)
    v = normal(risk.size)
    found = risk.curvature(v)
    assert abs(found.value - float(v @ hessian @ v / (v @ v))) <= found.rounding


def test_notes_say_what_training_does_otherwise_and_what_the_loss_hides():
    data = classification(convolutional)
    assert Risk.of(seeded(convolutional).eval(), F.cross_entropy, data).notes == ()
    (note,) = Risk.of(seeded(convolutional).train(), F.cross_entropy, data).notes
    assert "train mode" in note
    # Nothing in it differs between modes.
    plain = seeded(Residual).train()
    assert Risk.of(plain, F.cross_entropy, classification(Residual)).notes == ()

    def decayed(f, y):
        return F.cross_entropy(f, y) + 0.1 * plain.head.weight.square().sum()

    (note,) = Risk.of(plain, decayed, classification(Residual)).notes
    assert "unregularised" in note


def linear():
    return nn.Linear(3, 3)


def poisoned():
    model = nn.Linear(3, 3)
    model.weight.data[1, 2] = float("nan")
    return model


def frozen():
    return nn.Linear(3, 3).requires_grad_(False)


class Random(nn.Linear):
    def forward(self, x):
        return F.dropout(super().forward(x), training=True)


GOOD = [(normal(4, 3), torch.tensor([0, 1, 2, 0]))]
BAD = {
    "reduction none": (
        linear, lambda f, y: F.cross_entropy(f, y, reduction="none"), GOOD,
        LossError, r"one number.*\(4,\).*'mean'",
    ),
    "undeclared sum": (
        linear, lambda f, y: F.cross_entropy(f, y, reduction="sum"), GOOD,
        LossError, "reduction='sum'",
    ),
    "class weights over batches": (
        linear, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9, 3]).double()),
        GOOD * 2, LossError, "one batch",
    ),
    "a number": (linear, lambda f, y: 0.5, GOOD, LossError, "a float"),
    "a loss that raises": (
        linear, F.binary_cross_entropy, GOOD, LossError, "must take the model's outputs"
    ),
    "broadcast targets": (
        lambda: nn.Linear(3, 1), F.mse_loss, [(normal(4, 3), normal(4))],
        LossError, r"unsqueeze",
    ),
    "no data": (linear, F.cross_entropy, [], BatchError, "at least one sample"),
    "empty batches": (
        linear, F.cross_entropy, [(normal(0, 3), torch.zeros(0).long())],
        BatchError, "at least one sample",
    ),
    "three items": (
        linear, F.cross_entropy, [(normal(4, 3), 1, 2)], BatchError, "tuple of 3 items"
    ),
    "another width": (
        linear, F.cross_entropy, [(normal(4, 5), torch.zeros(4).long())],
        BatchError, "must run on the batches",
    ),
    "fewer inputs": (
        linear, F.cross_entropy, [(normal(3, 3), torch.zeros(4).long())],
        BatchError, "one row per sample",
    ),
    "NaN weights": (poisoned, F.cross_entropy, GOOD, NonFiniteError, "1 of 9.*'weight'"),
    "NaN data": (
        linear, F.cross_entropy, [(GOOD[0][0] * float("nan"), GOOD[0][1])],
        NonFiniteError, "outputs",
    ),
    "infinite loss": (
        linear, lambda f, y: F.mse_loss(f, f.detach()) / 0, GOOD, NonFiniteError, "risk"
    ),
    "frozen": (frozen, F.cross_entropy, GOOD, ValueError, "trainable"),
    "lazy": (lambda: nn.LazyLinear(3), F.cross_entropy, GOOD, ValueError, "one batch"),
    "complex": (
        lambda: nn.Linear(3, 3, dtype=torch.complex64), F.cross_entropy, GOOD,
        ValueError, "complex",
    ),
    "random": (
        lambda: Random(3, 3), F.cross_entropy, GOOD, NondeterminismError, "training=True"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_says_what_to_do(case):
    build, loss_fn, data, error, message = BAD[case]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules")
        model = seeded(build)
    with pytest.raises(error, match=message):
        Risk.of(model, loss_fn, data)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="must be one of 'mean', 'sum'"):
        Risk.of(linear(), F.cross_entropy, GOOD, reduction="none")
    with pytest.raises(ValueError, match="float16"):
        Risk.of(linear(), F.cross_entropy, GOOD, torch.float16)
    with pytest.raises(ValueError, match="above 0"):
        Risk.of(linear(), F.cross_entropy, GOOD).curvature(torch.zeros(12))


def test_a_single_batch_may_weigh_its_classes():
    model, weight = seeded(linear), torch.tensor([1.0, 9.0, 3.0]).double()
    loss_fn = nn.CrossEntropyLoss(weight=weight)
    risk = Risk.of(model, loss_fn, GOOD)
    expected = loss_fn(model.double()(GOOD[0][0]), GOOD[0][1])
    assert risk.value() == pytest.approx(expected.item())


def test_a_loss_without_second_derivative_names_the_operation():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g

    class Model(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    risk = Risk.of(seeded(lambda: Model(3, 3)), F.cross_entropy, GOOD)
    with pytest.raises(LossError, match="twice differentiable"):
        risk.hessian()


def test_blocks_of_columns_are_put_together():
    model = seeded(lambda: perceptron(3, 15, 3))
    data = classification(perceptron)
    risk = Risk.of(model, F.cross_entropy, data)
    assert risk.size > 64
    oracle, start = reference(model, F.cross_entropy, data)
    hessian = torch.autograd.functional.hessian(oracle, start)
    torch.testing.assert_close(risk.hessian(), hessian, rtol=0, atol=1e-10)


def test_class_weights_of_a_loss_module_follow_the_dtype():
    x, y = normal(12, 2).float(), torch.arange(12) % 3
    model, weight = seeded(lambda: nn.Linear(2, 3)), torch.tensor([1.0, 2.0, 3.0])
    loss_fn = nn.CrossEntropyLoss(weight=weight)
    risk = Risk.of(model, loss_fn, [(x, y)])
    logits = model.double()(x.double())
    expected = F.cross_entropy(logits, y, weight=weight.double())
    assert risk.value() == pytest.approx(expected.item(), rel=1e-14)
    assert loss_fn.weight.dtype == torch.float32


def test_batches_whose_halves_balance_by_chance_are_refused():
    # Two halves with the same class weights each: one batch alone looks like a mean.
    x, y = normal(12, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0])
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0]))
    model = seeded(lambda: nn.Linear(2, 3))
    pieces = list(zip(x.split(6), y.split(6), strict=True))
    with pytest.raises(LossError, match="do not add up to that of all data"):
        Risk.of(model, loss_fn, pieces)
    assert Risk.of(model, loss_fn, [(x, y)]).samples == 12


class Cut(nn.Module):
    """Gives no gradient to its parameters."""

    def __init__(self):
        super().__init__()
        self.unit = nn.Linear(2, 1)

    def forward(self, x):
        return self.unit(x).detach()


def test_what_no_gradient_goes_through_is_no_critical_point():
    data = [(normal(5, 2), normal(5, 1))]
    with pytest.raises(ValueError, match="no gradient reaches them"):
        Risk.of(Cut(), F.mse_loss, data)
    for loss_fn in (
        lambda f, y: F.mse_loss(f.detach(), y),
        lambda f, y: (f.round().detach() - y).abs().mean(),
        lambda f, y: y.mean(),
    ):
        with pytest.raises(LossError, match="differentiable"):
            Risk.of(nn.Linear(2, 1), loss_fn, data)


def test_statistics_of_the_batch_are_told():
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    data = [(normal(5, 2), normal(5, 3))]
    assert not Risk.of(model.eval(), F.mse_loss, data).notes
    model[1] = nn.BatchNorm1d(3, track_running_stats=False).eval()
    (note,) = Risk.of(model, F.mse_loss, data).notes
    assert "these very batches" in note
