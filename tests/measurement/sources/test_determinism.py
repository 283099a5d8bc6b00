import pytest
import torch
from torch import nn

from layerpeel._checks import NondeterminismError
from layerpeel.measurement import measure
from layerpeel.measurement.sources.batches import unpack
from layerpeel.measurement.sources.determinism import check_deterministic
from layerpeel.measurement.sources.head import Head
from tests.measurement.models import MODELS, AlwaysDropout, FunctionalDropout

BATCHES = MODELS["linear"].data()


def with_dropout_module(dtype=torch.float32):
    return nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(inplace=True), AlwaysDropout(), nn.Linear(6, 4)
    ).to(dtype)


def test_a_module_is_named():
    with pytest.raises(
        NondeterminismError, match=r"first module.* is '2' \(AlwaysDropout\)"
    ):
        measure(with_dropout_module(), BATCHES)


def test_a_functional_cause_is_placed_between_modules():
    match = (
        r"The input of 'fc2' \(Linear\) differs first.*the forward of "
        r"\(the model itself\) \(FunctionalDropout\), just before.*`training=True`"
    )
    with pytest.raises(NondeterminismError, match=match):
        measure(FunctionalDropout(), BATCHES)


def test_a_functional_cause_in_a_submodule_names_it():
    model = nn.Sequential(nn.Linear(5, 5), FunctionalDropout())
    with pytest.raises(
        NondeterminismError, match=r"'1.fc2' \(Linear\).*forward of '1' \(Func"
    ):
        measure(model, BATCHES)


def test_a_random_path_is_named():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = 0
            self.a, self.b, self.fc = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)

        def forward(self, x):
            self.turn += 1
            return self.fc((self.a if self.turn % 2 else self.b)(x))

    with pytest.raises(
        NondeterminismError, match=r"order of modules differs, first at '[ab]'"
    ):
        measure(Routed(), BATCHES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dropout_is_found_in_any_precision(dtype):
    batches = [(x.to(dtype), y) for x, y in BATCHES]
    with pytest.raises(NondeterminismError, match="AlwaysDropout"):
        measure(with_dropout_module(dtype), batches)


def test_the_check_can_be_switched_off():
    m = measure(with_dropout_module(), BATCHES, check_deterministic=False)
    assert m.num_samples == 24


@pytest.mark.parametrize("name", MODELS)
def test_ordinary_models_pass(name):
    model, recipe = MODELS[name]().eval(), MODELS[name]
    head = Head("", nn.Linear(1, 1))
    with pytest.raises(Exception, match="not called"):
        check_deterministic(model, unpack(recipe.data()[0]), head)
    measure(model, recipe.data())


class Jitter(nn.Module):
    """Adds a different multiple of the features' largest value on every call."""

    def __init__(self, share):
        super().__init__()
        self.share, self.turn, self.fc = share, 0, nn.Linear(5, 4)

    def forward(self, x):
        self.turn += 1
        return self.fc(x + self.share * (self.turn % 2) * x.abs().max())


@pytest.mark.parametrize(
    ("dtype", "rounding", "randomness"),
    [
        (torch.float64, 1e-15, 1e-12),
        (torch.float32, 1e-6, 1e-3),
        (torch.bfloat16, 0.01, 0.2),
    ],
)
def test_rounding_passes_and_more_does_not(dtype, rounding, randomness):
    batches = [(x.to(dtype), y) for x, y in BATCHES]
    measure(Jitter(rounding).to(dtype), batches)
    with pytest.raises(NondeterminismError, match="The input of 'fc'"):
        measure(Jitter(randomness).to(dtype), batches)
