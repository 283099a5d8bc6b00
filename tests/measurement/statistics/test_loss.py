import math

import torch

from layerpeel.measurement import LossSum


def test_mean_is_that_of_all_samples():
    losses = torch.rand(30, generator=torch.Generator().manual_seed(0))
    total = LossSum.empty()
    for part in losses.split(7):
        total = total.merge(LossSum.of(part))
    assert math.isclose(total.mean, losses.double().mean().item(), rel_tol=1e-14)
    assert int(total.count) == 30


def test_no_samples_have_no_mean():
    assert math.isnan(LossSum.empty().mean)
