import pytest
import torch
from torch import nn

from layerpeel.edits.narrowing.symmetry import Symmetry

ACTIVATIONS = [
    nn.Identity(), nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(-1.0), nn.LeakyReLU(1.0),
    nn.PReLU(), nn.RReLU(), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Hardswish(),
    nn.GELU(), nn.SiLU(), nn.Mish(), nn.ELU(), nn.CELU(), nn.SELU(), nn.Softplus(),
    nn.ReLU6(), nn.Hardtanh(), nn.Hardtanh(-1.0, 2.0), nn.Hardtanh(-2.0, 2.0),
    nn.Softshrink(), nn.Hardshrink(), nn.Threshold(0.3, 0.1),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_symmetries_are_those_of_the_values(activation):
    activation = activation.double().eval()
    x = torch.linspace(-5, 5, 401, dtype=torch.float64)[None]
    symmetry = Symmetry.of(activation)
    with torch.no_grad():
        y, mirrored = activation(x), activation(-x)
        scaled = all(torch.allclose(activation(c * x), c * y) for c in (0.1, 2.0, 30.0))
    assert symmetry.homogeneous == scaled
    # The mirrored values as an affine function of the values, if they are one.
    design = torch.stack([y[0], torch.ones_like(y[0])], 1)
    fit = torch.linalg.lstsq(design, mirrored[0]).solution
    affine = torch.allclose(design @ fit, mirrored[0], atol=1e-9)
    assert (symmetry.reflection is not None) == affine
    if symmetry.reflection is not None:
        assert symmetry.reflection == pytest.approx(tuple(fit.tolist()), abs=1e-9)


def test_no_activation_is_the_identity():
    assert Symmetry.of(None) == Symmetry.of(nn.Identity())
