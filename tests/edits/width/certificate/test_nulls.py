import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerpeel._checks import EditError
from layerpeel.edits.width.certificate import (
    direction,
    null_bias,
    null_certificates,
)
from tests.edits.networks import (
    convolutional,
    data_for,
    images,
    mlp,
    normal,
    outputs,
    relu_minimum,
)
from tests.edits.width.certificate.test_splits import pictures, small
from tests.edits.width.certificate.wider import (
    flat,
    hessian,
    null,
    plus,
    regression,
    signs,
    site,
)


def agree(certificate, model, data, loss, *, producer, consumers, norms=()):
    wide = null(model, certificate, producer, consumers, norms)
    new = len(wide.get_submodule(producer).weight) - 1
    u = flat(wide, direction(certificate, wide, None, new))
    H = hessian(wide, data, loss)
    assert float(u.norm()) == pytest.approx(1, rel=1e-12)
    scale = abs(certificate.curvature) + 1e-3 * float(H.abs().max())
    assert abs(float(u @ H @ u) - certificate.curvature) <= 1e-10 * scale
    torch.testing.assert_close(outputs(wide, data), outputs(model, data))
    assert signs(H) == plus(signs(hessian(model, data, loss)), certificate.inertia)


@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        (nn.Tanh, None),
        (nn.Tanh, 0.8),
        (nn.ReLU, None),
        (nn.Sigmoid, None),
        (nn.GELU, -0.6),
    ],
)
@pytest.mark.parametrize("path", ["0", "2"])
def test_the_inertia_of_a_null_neuron_is_added_at_any_point(activation, bias, path):
    model, data = mlp([2, 3, 2, 3], activation, seed=1), data_for(2, 3)
    where = site(model, path, data)
    for certificate in null_certificates(*where, F.cross_entropy, count=2, bias=bias):
        reader = str(int(path) + 2)
        agree(
            certificate, model, data, F.cross_entropy, producer=path, consumers=[reader]
        )
        height = float(
            activation()(torch.tensor(certificate.bias, dtype=torch.float64))
        )
        assert bool(certificate.bias_moves) == (height != 0)
        assert certificate.is_negative


def test_null_neurons_take_different_singular_pairs():
    model, data = mlp([3, 4, 2], nn.Tanh), regression(3, 2)
    found = null_certificates(*site(model, "0", data), F.mse_loss, count=5)
    x, y = (torch.cat([b[i] for b in data]) for i in (0, 1))
    with torch.no_grad():
        e = 2 * (model(x) - y) / y.numel()
    C = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1).T @ e
    sizes = torch.linalg.svdvals(C).tolist()
    expected = [-sizes[i % 2] for i in range(5)]
    assert [c.curvature for c in found] == pytest.approx(expected, rel=1e-10)
    v = [c.moves["0.weight"].flatten() for c in found[:2]]
    assert found[0].moves.keys() == {"0.weight", "0.bias"}
    r = [c.reads["2.weight"].flatten() for c in found[:2]]
    assert abs(float(r[0] @ r[1])) < 1e-12
    assert float(v[0].norm()) > 0.1


def test_a_null_neuron_is_worth_less_where_it_is_shifted():
    model, data = mlp([3, 4, 2], nn.Tanh), regression(3, 2)
    where = site(model, "0", data)
    at_zero, shifted = (
        null_certificates(*where, F.mse_loss, bias=bias)[0].curvature
        for bias in (0.0, 0.8)
    )
    height = torch.tanh(torch.tensor(0.8, dtype=torch.float64))
    factor = (1 - height**2) / (1 + height**2).sqrt()
    assert shifted == pytest.approx(float(factor) * at_zero, rel=1e-10)


def test_a_relu_minimum_with_one_output_is_escaped_by_a_null_neuron():
    model, data = relu_minimum()
    certificate = null_certificates(*site(model, "0", data), F.mse_loss)[0]
    assert signs(hessian(model, data, F.mse_loss)) == (0, 2, 5)
    assert certificate.inertia == (1, 1, 1)
    agree(certificate, model, data, F.mse_loss, producer="0", consumers=["2"])


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("bias", [True, False])
def test_null_channels_with_normalisation_and_pooling(activation, bias):
    model = small(bias=bias, padding=0, activation=activation())
    data = pictures()
    certificate = null_certificates(*site(model, "conv1", data), F.cross_entropy)[0]
    agree(
        certificate, model, data, F.cross_entropy,
        producer="conv1", consumers=["fc", "conv2"], norms=["bn1", "bn2"],
    )  # fmt: skip
    assert certificate.start["bn1.bias"].tolist() == [certificate.bias]


def test_views_with_numbers_of_channels_do_not_matter():
    values = [
        null_certificates(
            *site(
                small(written_out=written, padding=0, activation=nn.ReLU()),
                "conv1",
                pictures(),
            ),
            F.cross_entropy,
        )[0].curvature
        for written in (False, True)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-10)
    assert values[0] < 0


def test_without_residuals_nothing_is_claimed():
    model = mlp([2, 3, 2], nn.Tanh)
    x = normal(8, 2)
    with torch.no_grad():
        targets = torch.cat([model(row[None]) for row in x])
    certificate = null_certificates(*site(model, "0", [(x, targets)]), F.mse_loss)[0]
    assert not certificate.is_negative
    assert certificate.inertia == (0, 5, 0)


def test_what_cannot_be_compensated_is_refused():
    model = convolutional()
    # The second convolution has no bias, and pads with zeros.
    with pytest.raises(EditError, match="no bias"):
        null_certificates(*site(model, "conv1", images()), F.cross_entropy)
    padded = site(small(activation=nn.ReLU()), "conv1", pictures())
    with pytest.raises(EditError, match="pads with zeros"):
        null_certificates(*padded, F.cross_entropy)
    agree(
        null_certificates(*site(small(), "conv1", pictures()), F.cross_entropy)[0],
        small(), pictures(), F.cross_entropy,
        producer="conv1", consumers=["fc", "conv2"], norms=["bn1", "bn2"],
    )  # fmt: skip
    plain = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)
    ).double()
    with pytest.raises(EditError, match="needs a bias"):
        null_certificates(*site(plain, "0", regression(2, 2)), F.mse_loss)
    with pytest.raises(ValueError, match="finite"):
        null_certificates(
            *site(plain, "0", regression(2, 2)), F.mse_loss, bias=float("nan")
        )
    with pytest.raises(ValueError, match="count"):
        null_certificates(*site(plain, "0", regression(2, 2)), F.mse_loss, count=0)


@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        (None, 0.0), (nn.Tanh(), 0.0), (nn.GELU(), 0.0), (nn.SiLU(), 0.0),
        (nn.Sigmoid(), 0.0), (nn.Softplus(), 0.0), (nn.Identity(), 0.0),
        (nn.ReLU(), 1.0), (nn.LeakyReLU(), 1.0), (nn.ELU(), 1.0), (nn.ReLU6(), 1.0),
        (nn.Hardtanh(), 0.0), (nn.Softshrink(), 1.5),
    ],
)  # fmt: skip
def test_null_neurons_begin_off_the_kinks(activation, bias):
    assert null_bias(activation) == bias
