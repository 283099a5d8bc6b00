import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._tolerances import EPS
from layerpeel.measurement.clones.reconstruction.basis import Basis
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import correlated, degenerate, normal, seeded

LAYERS = {
    "regular": (correlated(), 9),
    "copies and constants": (degenerate(), 5),
    "fewer samples": (normal(6, 9), 5),
    "one sample": (normal(1, 9), 0),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_factor_is_that_of_independent_neurons(layer):
    rows, rank = LAYERS[layer]
    covariance = Covariance.of(rows)
    neurons, factor, scale = Basis.of(covariance, torch.arange(9), EPS)
    assert len(neurons) == rank
    assert len(set(neurons.tolist())) == rank
    scatter = covariance.scatter[neurons][:, neurons]
    scaled = scale[:, None] * scatter * scale
    assert torch.allclose(factor @ factor.T, scaled, rtol=1e-10)
    assert not bool(factor.triu(1).any())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_units_of_neurons_do_not_matter(seed):
    units = 10 ** (12 * torch.rand(9, generator=seeded(seed)).double() - 6)
    rows = degenerate(seed=seed % 50)
    chunk = torch.randperm(9, generator=seeded(seed))[:6]
    found = Basis.of(Covariance.of(rows), chunk, EPS)
    scaled = Basis.of(Covariance.of(rows * units), chunk, EPS)
    assert len(found.neurons) == len(scaled.neurons)
    # Chunks of six without a combination among them have as many as vary.
    expected = torch.linalg.matrix_rank((rows - rows.mean(0))[:, chunk], rtol=1e-9)
    assert len(found.neurons) == int(expected)
