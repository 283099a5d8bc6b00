import inspect
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerpeel._checks import BatchError, HeadError, LabelError
from layerpeel.measurement import measure, measure_features
from layerpeel.measurement.sources.forward import evaluating, recorded_calls
from tests.measurement.models import MODELS, Wrapped, mlp


def state(model):
    """Everything about a model that measuring may not change."""
    return {
        "training": [m.training for m in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
        ],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "tensors": [t.clone() for t in model.state_dict().values()],
    }


def assert_same_state(a, b):
    for name in ("training", "hooks", "requires_grad", "grad"):
        assert a[name] == b[name], name
    for x, y in zip(a["tensors"], b["tensors"], strict=True):
        assert torch.equal(x, y)


def trained(name="mlp"):
    """A model in training, with a frozen BatchNorm in eval mode and a frozen layer."""
    model = MODELS[name]()
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    next(model.parameters()).requires_grad_(False)
    return model


def test_comparison_can_fail():
    model = trained()
    for change in (
        lambda m: m.eval(),
        lambda m: m[0].register_forward_hook(lambda *a: None),
        lambda m: m[4].requires_grad_(False),
        lambda m: m[1].running_mean.add_(1),
    ):
        changed = trained()
        change(changed)
        with pytest.raises(AssertionError):
            assert_same_state(state(model), state(changed))


@pytest.mark.parametrize("name", MODELS)
def test_model_is_given_back_as_it_was(name):
    model = trained(name)
    before = state(model)
    measure(model, MODELS[name].data(), eval_loader=MODELS[name].data(seed=2))
    assert_same_state(before, state(model))


@pytest.mark.parametrize("when", [0, 2])
def test_model_is_given_back_after_an_error(when):
    model, batches = trained(), MODELS["mlp"].data()
    batches[when] = (batches[when][0], torch.full((8,), 99))
    before = state(model)
    with pytest.raises(LabelError):
        measure(model, batches)
    assert_same_state(before, state(model))


def test_model_is_given_back_when_its_forward_fails():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = mlp(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 3:
                raise ArithmeticError
            return self.inner(x)

    model = Failing()
    before = state(model)
    with pytest.raises(ArithmeticError):
        measure(model, MODELS["mlp"].data())
    assert_same_state(before, state(model))


def test_running_statistics_and_dropout_are_in_eval_mode():
    seen = []
    model = trained()
    handle = model[3].register_forward_hook(
        lambda m, a, out: seen.append((m.training, a[0] is out))
    )
    measure(model, MODELS["mlp"].data())
    handle.remove()
    assert {training for training, _ in seen} == {False}


def test_a_models_own_train_method_is_not_called():
    class Merging(nn.Linear):
        def train(self, mode=True):
            raise AssertionError

    measure(Merging(5, 4), MODELS["linear"].data())


def random_states():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()


def test_global_random_states_are_put_back():
    model = mlp()
    before = random_states()
    with evaluating(model):
        torch.rand(1), random.random(), np.random.rand()
        assert before[1] != random.getstate()
    after = random_states()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_shuffling_loader_shuffles_as_if_not_measured():
    x, y = torch.arange(120.0).view(24, 5), torch.arange(24) % 4
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    model, before = MODELS["linear"](), torch.get_rng_state()
    measure(model, loader)
    assert torch.equal(before, torch.get_rng_state())


def test_models_stay_trainable():
    class Caching(nn.Module):
        """Keeps a tensor from its first call, as rotary embeddings do."""

        def __init__(self):
            super().__init__()
            self.fc, self.scale = nn.Linear(5, 4), None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.ones(5) * 2
            return self.fc(x * self.scale)

    model = Caching()
    batches = MODELS["linear"].data()
    measure(model, batches)
    model(batches[0][0]).sum().backward()
    assert model.fc.weight.grad is not None


def test_recorded_calls_come_in_execution_order():
    model = mlp().eval()
    modules = {p: m for p, m in model.named_modules() if p}
    with recorded_calls(modules) as calls:
        model(torch.zeros(2, 5))
    assert [call.path for call in calls] == [str(i) for i in range(7)]
    model(torch.zeros(2, 5))
    assert len(calls) == 7


class Output(dict):
    """An object with attributes, as model libraries return."""

    __getattr__ = dict.__getitem__


class Namespace:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: z,
        lambda z: {"logits": z, "loss": None},
        lambda z: Output(loss=None, logits=z),
        Namespace,
        lambda z: (z, "attention"),
        lambda z: [z],
        lambda z: z.double(),
    ],
    ids=["tensor", "dict", "mapping object", "object", "tuple", "list", "cast"],
)
def test_outputs_in_any_wrapping(wrap):
    model = Wrapped(MODELS["linear"](), wrap)
    expected = measure(model.model, MODELS["linear"].data())
    m = measure(model, MODELS["linear"].data())
    assert m.head == "model"
    assert m.nc1() == expected.nc1()
    assert m.accuracy == expected.accuracy


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda z: {"scores": z}, "got dict"),
        (lambda z: "text", "got str"),
        (lambda z: (None, z), "got tuple"),
        (lambda z: z[:, :, None], r"\(8, K\) here; got \(8, 4, 1\)"),
        (lambda z: z[:3], r"\(8, K\) here; got \(3, 4\)"),
        (lambda z: z.argmax(1), r"got \(8,\)"),
    ],
    ids=["no logits", "text", "logits second", "3-d", "rows lost", "labels"],
)
def test_other_outputs_are_refused(wrap, match):
    with pytest.raises(HeadError, match=match):
        measure(Wrapped(MODELS["linear"](), wrap), MODELS["linear"].data())


def test_evaluating_restores_every_module_by_itself():
    model = trained()
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert model.training
    assert not model[1].training


def test_a_batch_that_the_model_does_not_take_is_shown():
    with pytest.raises(
        BatchError, match=r"torch.float64 \(3, 5\).*raised RuntimeError.*dtype"
    ):
        measure(nn.Linear(5, 2), [(torch.zeros(3, 5).double(), [0, 1, 1])])
    # Without the run-time type checks of the tests, as users have it.
    with pytest.raises(TypeError, match=r"nn\.Module; got str"):
        inspect.unwrap(measure)("model", [])


def test_arrays_that_hold_no_real_numbers_are_refused():
    features = np.zeros((3, 5), dtype=complex)
    with pytest.raises(ValueError, match="real numbers; got complex128"):
        measure_features(features, [0, 1, 1], weight=np.ones((2, 5)))
