import math

import pytest
import torch
from torch import nn

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.moments import ClassMoments
from tests.measurement.layers.networks import observed

RANK, WIDTH, SAMPLES = 10, 64, 600
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def affine(dtype, bias, spread):
    """The profile of a layer of known rank: singular values about ``spread``."""
    g = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(WIDTH, RANK, generator=g).double())
    layer = nn.Linear(RANK, WIDTH).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(spread * basis)
        layer.bias.fill_(bias)
    x = torch.randn(SAMPLES, RANK, generator=g).to(dtype)
    y = torch.arange(SAMPLES) % 4
    return observed(nn.Sequential(layer), x, y)["0"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [0.0, 10.0, 1e2, 1e4])
def test_the_rank_of_a_layer_far_from_the_origin(dtype, bias):
    # Twice what rounding may make of a zero.
    length = max(1.0, bias * WIDTH**0.5)
    layer = affine(DTYPES[dtype], bias, 4 * torch.finfo(DTYPES[dtype]).eps * length)
    assert layer.dtype == dtype
    assert layer.numerical_rank() == RANK
    assert layer.effective_rank() == pytest.approx(RANK, rel=0.02)
    assert layer.participation_ratio() == pytest.approx(RANK, rel=0.05)
    if bias == 1e4:
        assert layer.numerical_rank(tolerance=1e-6) > RANK  # rounding, if asked for


@pytest.mark.parametrize("dtype", DTYPES)
def test_variation_that_rounding_hides_is_none(dtype):
    eps = torch.finfo(DTYPES[dtype]).eps
    layer = affine(DTYPES[dtype], 1e4, 1e4 * eps)
    assert layer.numerical_rank() == 0
    for rank in (layer.effective_rank, layer.participation_ratio):
        with pytest.warns(UndefinedWarning, match="up to rounding of the outputs"):
            assert math.isnan(rank())


def test_a_default_layer_with_a_large_bias():
    torch.manual_seed(0)
    layer = nn.Linear(10, 64)
    nn.init.constant_(layer.bias, 100.0)
    x = torch.randn(500, 10, generator=torch.Generator().manual_seed(1))
    assert (
        observed(nn.Sequential(layer), x, torch.arange(500) % 4)["0"].numerical_rank()
        == RANK
    )


def of_features(h, dtype="float32"):
    """The statistics of given features, in two classes."""
    y = torch.arange(len(h)) % 2
    moments = ClassMoments.of(h, y, 2, light=True)
    return LayerStatistics("Linear", dtype, moments, Covariance.of(h), None, None)


def test_a_unit_of_huge_size_hides_no_more_than_its_rounding():
    g = torch.Generator().manual_seed(0)
    h = torch.randn(300, 20, generator=g).double()
    h[:, 0] += 50.0
    assert of_features(h, "bfloat16").numerical_rank() == 20


def test_the_message_of_missing_ranks_names_where_the_limit_is():
    h = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    whole = of_features(h)
    layer = whole.with_samples(whole.moments, None)
    for rank in (layer.numerical_rank, layer.effective_rank, layer.participation_ratio):
        with pytest.warns(UndefinedWarning, match="`LayerObserver` with a higher"):
            assert math.isnan(rank())


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_the_same_features_in_both_classes_are_undefined(shift):
    h = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).double() + shift
    twice = torch.stack([h, h.flip(0)], 1).reshape(100, 5)
    layer = of_features(twice, "float64")
    for quotient in (layer.cdnv, layer.nc1_quotient):
        with pytest.warns(UndefinedWarning, match=r"coincide|distinct means"):
            assert math.isnan(quotient())
