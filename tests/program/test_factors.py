import pytest
import torch

from layerpeel.program.factors import ExplicitFactors, SpectralFactors
from layerpeel.program.spectrum import BlockSpectrum

close = torch.testing.assert_close
GROUPS = ((0, 2, 3), (1, 4))


def spectrum():
    generator = torch.Generator().manual_seed(1)
    between = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    U, S, Vt = torch.linalg.svd(between)
    within = torch.tensor([2.0, 0.0], dtype=torch.float64)
    return BlockSpectrum(GROUPS, within, S, U, Vt.T)


def delta():
    return torch.tensor([3.0, 2.0, 3.0, 3.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_factors_multiply_to_the_logits_and_have_the_geometry(depth):
    factors = SpectralFactors(spectrum(), delta(), balance=0.7, depth=depth)
    W, H = factors.classifiers(), factors.class_means()
    close(W @ H.T * delta(), spectrum().matrix)
    close(factors.geometry.logits, W @ H.T)
    close(factors.geometry.classifier_gram, W @ W.T)
    close(factors.geometry.feature_gram, H @ H.T)


@pytest.mark.parametrize("depth", [1, 3])
def test_every_layer_spends_the_same(depth):
    # |W_M ... W_1 G| splits into M + 1 factors of equal weighted energy.
    factors = SpectralFactors(spectrum(), delta(), balance=1.0, depth=depth)
    values = torch.linalg.svdvals(spectrum().matrix)
    share = values.pow(2 / (depth + 1)).sum()
    G = factors.class_means() * delta()[:, None]
    close(G.square().sum(), share)
    close(torch.linalg.svdvals(factors.classifiers()).pow(2 / depth).sum(), share)


def test_classes_without_spread_have_equal_rows_exactly():
    W = SpectralFactors(spectrum(), delta(), balance=2.0).classifiers()
    assert torch.equal(W[1], W[4])


def test_explicit_factors_are_what_they_are_given():
    W, H = torch.eye(3, dtype=torch.float64), 2 * torch.eye(3, dtype=torch.float64)
    factors = ExplicitFactors(W, H)
    assert factors.classifiers() is W
    assert factors.class_means() is H
    close(factors.geometry.logits, 2 * W)
