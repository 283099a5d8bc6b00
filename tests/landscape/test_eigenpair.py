import pytest
import torch
from torch.nn import functional as F

from layerpeel.landscape import Eigenpair, Risk
from tests.landscape.networks import Residual, classification, normal, seeded


def test_a_residual_bounds_the_distance_to_an_eigenvalue():
    risk = Risk.of(seeded(Residual), F.cross_entropy, classification(Residual))
    matrix = risk.hessian()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    for seed in range(5):
        pair = Eigenpair.of(risk, 3 * normal(risk.size, seed=seed))
        assert float((values - pair.value).abs().min()) <= pair.residual
        assert values[0] <= pair.value <= values[-1]
        assert float(pair.vector.norm()) == pytest.approx(1.0)
    exact = Eigenpair.of(risk, vectors[:, 3].clone())
    assert exact.value == pytest.approx(float(values[3]), abs=1e-14)
    assert exact.residual <= 1e-13
