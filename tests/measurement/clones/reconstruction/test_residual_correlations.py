import numpy as np
import pytest
import torch

from layerpeel.measurement.clones.reconstruction.residual_correlations import (
    PAPER_FLOOR,
    correlation_sum,
    floored_sum,
)
from tests.measurement.clones.layers import normal


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_sums_over_pairs_are_those_of_correlations(scale):
    rows = scale * normal(40, 7)
    spread = np.cov(rows.numpy().T)
    deviation = np.sqrt(np.diag(spread))
    floored = np.abs(spread) / (np.outer(deviation, deviation) + PAPER_FLOOR)
    pairs = np.tril_indices(7, -1)
    found = floored_sum(torch.from_numpy(spread))
    assert found == pytest.approx(floored[pairs].sum(), rel=1e-12)
    left = torch.tensor([True, True, False, True, True, False, True])
    kept = np.corrcoef(rows[:, left].numpy().T)
    expected = np.abs(kept[np.tril_indices(5, -1)]).sum()
    found = correlation_sum(torch.from_numpy(spread), left)
    assert found == pytest.approx(expected, rel=1e-12)
