import numpy as np
import pytest
import torch

from layerpeel.measurement.clones.reconstruction.ridge import PAPER_RIDGE, Ridge
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import correlated, degenerate


@pytest.mark.parametrize(
    ("rows", "chunk"), [(correlated(), [7, 0, 3]), (degenerate(), [0, 4, 1, 6])]
)
def test_the_ridge_is_that_of_the_augmented_least_squares(rows, chunk):
    x = rows.numpy() - rows.numpy().mean(0)
    padding = np.eye(len(chunk)) * PAPER_RIDGE**0.5
    augmented = np.vstack([x[:, chunk], padding])
    target = np.vstack([x, np.zeros((len(chunk), x.shape[1]))])
    expected = np.linalg.lstsq(augmented, target, rcond=1e-12)[0]
    outside = [j for j in range(x.shape[1]) if j not in chunk]
    found = Ridge(
        Covariance.of(rows).scatter, torch.tensor(chunk), torch.tensor(outside)
    )
    predicted = x[:, chunk] @ found.coefficients.numpy()
    assert np.allclose(predicted, x[:, chunk] @ expected, atol=1e-7)
    missed = x - x[:, chunk] @ expected
    scale = np.sqrt(np.outer(np.diag(x.T @ x), np.diag(x.T @ x)))
    error = np.abs(found.residual.numpy() - missed.T @ missed)
    assert (error <= 1e-10 * scale + 1e-12).all()
