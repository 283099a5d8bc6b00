from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import LossError
from layerpeel.landscape import Risk
from layerpeel.landscape.functional import differentiable
from tests.landscape.networks import classification, normal, normalised, seeded


def test_settings_are_put_back_even_after_an_error():
    def settings():
        backends = torch.backends.cuda
        return (
            torch.backends.mha.get_fastpath_enabled(),
            backends.flash_sdp_enabled(),
            backends.math_sdp_enabled(),
            torch.is_grad_enabled(),
        )

    def failing():
        with torch.no_grad(), differentiable():
            assert settings() != before
            assert torch.is_grad_enabled()
            raise KeyError

    before = settings()
    with pytest.raises(KeyError):
        failing()
    assert settings() == before


def test_layer_normalisation_curves_as_finite_differences_say():
    # Twice forward, torch gives other numbers here.
    risk = Risk.of(seeded(normalised), F.cross_entropy, classification(normalised))
    v, h = normal(risk.size), 1e-4
    v /= v.norm()
    slopes = [float(v @ risk.gradient(risk.point + s * h * v)) for s in (1, -1)]
    found = risk.curvature(v)
    assert found.value == pytest.approx((slopes[0] - slopes[1]) / (2 * h), abs=1e-6)
    assert found.rounding <= 1e-11


def test_a_model_that_has_no_copy_is_refused():
    model = nn.Linear(3, 3)
    model.cache = model.weight * 2
    with pytest.raises(ValueError, match="copyable"):
        Risk.of(model, F.cross_entropy, classification(normalised))


class Counting(nn.Module):
    """Counts its calls, takes a branch by its data, and writes in place."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        z = self.layer(x)
        z = z * 2 if float(z.detach().sum()) > 0 else z
        out = torch.zeros(len(x), 4, dtype=z.dtype)
        out[:, :2] = torch.tanh(z[:, :2])
        out += z
        return self.head(out)


def embedded():
    return nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 3))


def weight_normed():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    return nn.Sequential(normed, nn.Tanh(), nn.Linear(4, 3))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(1, 2, 2, batch_first=True), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.cells(x[..., None])[0][:, -1])


def orthogonal():
    mapped = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))
    return nn.Sequential(mapped, nn.Tanh(), nn.Linear(3, 3))


@pytest.mark.parametrize("build", [Counting, embedded, orthogonal, Recurrent])
def test_unusual_models_have_the_hessian_of_finite_differences(build):
    model = seeded(build)
    x, y = normal(7, 3), torch.arange(7) % 3
    data = [((x.abs() % 1 * 5).long() if build is embedded else x, y)]
    risk = Risk.of(model, F.cross_entropy, data)
    v, h = normal(risk.size), 1e-4
    slopes = [risk.gradient(risk.point + s * h * v) for s in (1, -1)]
    expected = (slopes[0] - slopes[1]) / (2 * h)
    torch.testing.assert_close(risk.hessian() @ v, expected, rtol=0, atol=1e-6)
    assert build is not Counting or float(risk.model.calls) == 0.0


class WrongCurvature(torch.autograd.Function):
    """The product of two tensors, by a rule whose own derivative is wrong."""

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * b.detach(), g * a


def test_second_derivatives_that_are_wrong_are_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return WrongCurvature.apply(self.first(x), self.second(x))

    data = [(normal(7, 3), torch.arange(7) % 3)]
    risk = Risk.of(seeded(Model), F.cross_entropy, data)
    with pytest.raises(LossError, match="not symmetric"):
        risk.hessian()


def test_weight_normalisation_is_right_or_refused():
    # Torch 2.13 has a wrong second derivative of it; others may have the right one.
    data = [(normal(7, 3), torch.arange(7) % 3)]
    risk = Risk.of(seeded(weight_normed), F.cross_entropy, data)
    v, h = normal(risk.size), 1e-4
    slopes = [risk.gradient(risk.point + s * h * v) for s in (1, -1)]
    expected = (slopes[0] - slopes[1]) / (2 * h)
    with suppress(LossError):
        torch.testing.assert_close(risk.product(v), expected, rtol=0, atol=1e-6)
