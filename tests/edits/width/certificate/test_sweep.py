import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from layerpeel.edits.width.certificate import screen_splits, split_matrices, splits
from layerpeel.edits.width.certificate.capture import Site
from layerpeel.edits.width.certificate.products import General, Plain, is_plain
from tests.edits.networks import convolutional, data_for, images, mlp, normal
from tests.edits.width.certificate.wider import regression, site

OUTSIDE = (1 + math.sqrt(2)) / 2


def lowest(found, alpha):
    """The lowest generalised eigenvalue, with the lengths of directions as a matrix."""
    B, C = found.B, found.C
    p, q = C.shape
    Q = torch.zeros(p + q, p + q, dtype=torch.float64)
    Q[:p, :p], Q[:p, p:], Q[p:, :p] = alpha * (1 - alpha) * B, C, C.T
    lengths = [alpha**2 + (1 - alpha) ** 2] * p + [2.0] * q
    roots = torch.tensor(lengths, dtype=torch.float64).rsqrt()
    return float(torch.linalg.eigvalsh(roots[:, None] * Q * roots)[0])


@pytest.mark.parametrize("alpha", [0.5, -0.7, 1.6, 1.0, None])
def test_ritz_values_after_all_steps_are_the_eigenvalues(alpha):
    model, data = mlp([3, 4, 2], nn.Tanh, seed=1), data_for(3, 2)
    where = site(model, "0", data)
    screening = screen_splits(*where, F.cross_entropy, alpha=alpha, iterations=12)
    for i in range(4):
        found = split_matrices(*where, F.cross_entropy, i)
        choices = [alpha] if alpha is not None else [0.5, OUTSIDE]
        values = [lowest(found, choice) for choice in choices]
        best = min(values)
        assert float(screening.curvatures[i]) == pytest.approx(best, rel=1e-8)
        assert screening.alphas[i] == choices[values.index(best)]
        certificate = screening.certificate(i)
        assert certificate.curvature == pytest.approx(best, rel=1e-10)
        assert certificate.alpha == screening.alphas[i]


def test_a_few_steps_find_the_best_neuron():
    model, data = mlp([20, 32, 5], nn.Tanh, seed=3), data_for(20, 5, samples=100)
    where = site(model, "0", data)
    screening = screen_splits(*where, F.cross_entropy, alpha=0.5)
    exact = torch.tensor(
        [lowest(split_matrices(*where, F.cross_entropy, i), 0.5) for i in range(32)]
    )
    assert (screening.curvatures >= exact - 1e-12).all()
    assert (screening.curvatures <= 0.75 * exact).all()
    assert screening.order[0] == int(exact.argmin())
    assert screening.backward_passes <= 20


def test_screening_in_single_precision_is_near():
    model, data = mlp([20, 8, 5], nn.GELU, seed=3), data_for(20, 5, samples=50)
    single = [(x.float(), y) for x, y in data]
    double = screen_splits(*site(model, "0", data), F.cross_entropy, iterations=40)
    model.float()
    found = screen_splits(*site(model, "0", single), F.cross_entropy, iterations=40)
    torch.testing.assert_close(
        found.curvatures, double.curvatures, rtol=1e-3, atol=1e-6
    )


def test_some_neurons_are_looked_at_alone():
    for model, path, data in (
        (mlp([3, 6, 2], nn.Tanh), "0", data_for(3, 2)),
        (convolutional(), "conv1", images()),
    ):
        every = screen_splits(*site(model, path, data), F.cross_entropy, iterations=60)
        some = screen_splits(
            *site(model, path, data), F.cross_entropy, neurons=[3, 1], iterations=60
        )
        assert some.neurons == (3, 1)
        torch.testing.assert_close(
            some.curvatures, every.curvatures[[3, 1]], rtol=1e-6, atol=1e-9
        )


class Twice(nn.Module):
    """Two readers, one without a bias; inputs with an axis more."""

    def __init__(self, inputs, width, outputs, activation):
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.act = activation()
        self.a = nn.Linear(width, outputs)
        self.b = nn.Linear(width, 1, bias=False)

    def forward(self, x):
        h = self.act(self.fc1(x))
        return (self.a(h) * self.b(h)).mean(1)


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    activation=st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid, nn.SiLU]),
    frozen=st.sampled_from([None, "fc1.bias", "fc1.weight", "a.weight"]),
    seed=st.integers(0, 10**6),
)
def test_products_in_closed_form_are_those_of_autograd(sizes, activation, frozen, seed):
    torch.manual_seed(seed)
    model = Twice(*sizes, activation).double().eval()
    if frozen:
        model.get_parameter(frozen).requires_grad_(False)
    data = [
        (normal(n, 2, sizes[0], seed=seed + n), normal(n, sizes[2], seed=seed))
        for n in (3, 2)
    ]
    where = site(model, "fc1", data)
    assert is_plain(where[1])
    at = Site(*where, F.mse_loss)
    neurons = list(range(sizes[1]))[::-1]
    p, q = at.layout.sizes
    v, r = normal(len(neurons), p, seed=1), normal(len(neurons), q, seed=2)
    plain = Plain(at.exact, at.layer, neurons)(v, r)
    general = General(at.exact, neurons)(v, r)
    for one, two in zip(plain, general, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    for row, neuron in enumerate(neurons):
        found = split_matrices(*where, F.mse_loss, neuron)
        expected = found.B @ v[row] + found.C @ r[row]
        torch.testing.assert_close(plain[0][row], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            plain[1][row], found.C.T @ v[row], rtol=1e-10, atol=1e-12
        )


def test_ways_with_more_than_an_activation_are_not_plain():
    assert not is_plain(site(convolutional(), "conv2", images())[1])


@pytest.mark.parametrize("alpha", [0.5, 1.6, None])
def test_certificates_of_large_neurons_need_no_matrix(monkeypatch, alpha):
    for model, path, data in (
        (mlp([5, 4, 3], nn.Tanh), "0", data_for(5, 3)),
        (convolutional(), "conv1", images()),
    ):
        screening = screen_splits(
            *site(model, path, data), F.cross_entropy, alpha=alpha
        )
        neuron = screening.order[0]
        dense = screening.certificate(neuron)
        monkeypatch.setattr(splits, "MOST_DENSE", 4)
        found = screening.certificate(neuron)
        monkeypatch.undo()
        assert found.inertia is None
        assert dense.inertia is not None
        assert found.curvature == pytest.approx(dense.curvature, rel=1e-8)
        assert found.gradient == pytest.approx(dense.gradient, rel=1e-8)
        assert found.is_negative
        assert found.alpha == dense.alpha


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": math.inf}, "alpha"),
        ({"iterations": 0}, "iterations"),
        ({"neurons": [4]}, "from 0 to 3"),
        ({"neurons": []}, "from 0 to 3"),
        ({"neurons": [-1]}, "neurons"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    where = site(mlp([3, 4, 2]), "0", regression(3, 2))
    with pytest.raises(ValueError, match=message):
        screen_splits(*where, F.mse_loss, **options)
