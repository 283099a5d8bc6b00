import mpmath
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel.landscape import Curvature, Risk
from layerpeel.landscape.spectrum import Spectrum
from tests.landscape.networks import normal, perceptron, tanh_network


def test_a_sign_needs_more_than_rounding():
    assert Curvature(-2.0, 1.0).is_negative
    assert not Curvature(-1.0, 1.0).is_negative
    assert not Curvature(2.0, 1.0).is_negative
    assert not Curvature(-1.0, float("nan")).is_negative


def test_ways_that_disagree_widen_the_bound():
    found = Curvature.of((-1.0, -1.5), 0.0, 10, 1e-16)
    assert found == Curvature(-1.0, 1.0)
    assert Curvature.of((-1.0, -1.0), 3.0, 10, 0.125).rounding == 3.75


def exact_curvature(model, data, direction):
    """The second derivative along a direction in 50 digits."""
    (x, y) = data[0]
    w, b, a, c = (p.detach().flatten().tolist() for p in model.parameters())
    v = direction.tolist()
    mpmath.mp.dps = 50

    def risk(t):
        theta = [mpmath.mpf(p) + t * mpmath.mpf(d) for p, d in zip(
            [*w, *b, *a, *c], v, strict=True
        )]  # fmt: skip
        total = mpmath.mpf(0)
        for xi, yi in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True):
            hidden = [mpmath.tanh(theta[k] * xi + theta[2 + k]) for k in range(2)]
            out = theta[4] * hidden[0] + theta[5] * hidden[1] + theta[6]
            total += (out - mpmath.mpf(yi)) ** 2
        return total / len(x)

    return float(mpmath.diff(risk, 0, 2))


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_covers_the_error_against_fifty_digits(seed):
    model, data = tanh_network(seed)
    v = normal(7, seed=seed)
    v /= v.norm()
    found = Risk.of(model, F.mse_loss, data).curvature(v)
    expected = exact_curvature(model, data, v)
    assert abs(found.value - expected) <= found.rounding
    assert found.rounding <= 1e-11


def interpolating(seed):
    """A network that fits its targets: the directions that outputs ignore are flat."""
    model = perceptron(2, 3, 3, 2).double()
    for k, parameter in enumerate(model.parameters()):
        parameter.data = normal(*parameter.shape, seed=10 * seed + k)
    x = normal(8, 2, seed=seed)
    return Risk.of(model, F.mse_loss, [(x, model(x).detach())])


def saturated(seed):
    """A convex risk whose logits differ by so much that softmax leaves rounding."""
    model = nn.Linear(2, 3).double()
    for k, parameter in enumerate(model.parameters()):
        parameter.data = 30 * normal(*parameter.shape, seed=10 * seed + k)
    x = normal(8, 2, seed=seed)
    return Risk.of(model, F.cross_entropy, [(x, model(x).argmax(1))])


@pytest.mark.parametrize("build", [interpolating, saturated])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_proved_at_a_minimum_by_what_rounding_leaves(build, seed):
    risk = build(seed)
    matrix = risk.hessian()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    # No eigenvalue of theirs is negative, and many are zero.
    assert Spectrum.dense(risk, 0.0).inertia.negative == 0
    for i in values.abs().argsort()[:8].tolist():
        assert not risk.curvature(vectors[:, i].clone()).is_negative


def test_a_margin_is_asked_for_beyond_rounding():
    assert Curvature(-1.0, 0.5).is_below(0.9)
    assert not Curvature(-1.0, 0.5).is_below(1.0)
    assert not Curvature(-1.0, 1.0).is_below(0.0)


def test_terms_that_cancel_are_in_the_bound():
    model = nn.Linear(2, 1, bias=False).double()
    # Both samples curve by 1e16, in opposite directions: nothing is left, up to rounding.
    x = 1e8 * torch.eye(2, dtype=torch.float64)[:1].repeat(2, 1)
    signs = torch.tensor([[1.0], [-1.0]]).double()
    risk = Risk.of(model, lambda f, s: (s * f.square()).mean(), [(x, signs)])
    found = risk.curvature(torch.tensor([1.0, 0.0]))
    assert found.rounding > 1.0
    assert not found.is_negative


def test_the_length_of_the_direction_does_not_matter():
    model, data = tanh_network()
    risk, v = Risk.of(model, F.mse_loss, data), normal(7)
    assert risk.curvature(1e-3 * v).value == pytest.approx(risk.curvature(v).value)
