import pytest
import torch
from torch.nn import functional as F

from layerpeel.landscape import HessianOperator, Risk
from tests.landscape.networks import Residual, classification, normal, seeded


@pytest.fixture
def risk():
    return Risk.of(seeded(Residual), F.cross_entropy, classification(Residual))


def test_it_multiplies_by_the_hessian(risk):
    operator, v = HessianOperator(risk, shift=2.0), normal(risk.size, 2)
    expected = risk.hessian() @ v + 2 * v
    torch.testing.assert_close(torch.from_numpy(operator @ v.numpy()), expected)
    one = torch.from_numpy(operator.H @ v[:, 0].numpy())
    torch.testing.assert_close(one, expected[:, 0])
    assert operator.products == 3


def test_it_may_be_taken_elsewhere(risk):
    at, v = risk.point + 1, normal(risk.size)
    found = torch.from_numpy(HessianOperator(risk, at) @ v.numpy())
    torch.testing.assert_close(found, risk.hessian(at) @ v)
