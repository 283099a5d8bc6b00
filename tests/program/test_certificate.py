import math

import numpy as np
import pytest
import torch

from layerpeel.program.certificate import certify
from layerpeel.program.spectrum import BlockSpectrum
from tests.program.layer_peeled_reference import lower_bound, objective

GROUPS = {
    "one group": ((0, 1, 2, 3),),
    "two groups": ((0, 1, 2), (3, 4)),
    "single classes": ((0,), (1,), (2,), (3,)),
    "three groups": ((2, 3), (0,), (1, 4, 5)),
}


def random_spectrum(groups, scale, generator):
    """Any group-symmetric matrix at all, far from every optimum."""
    square = torch.randn(
        (len(groups), len(groups)), dtype=torch.float64, generator=generator
    )
    left, values, right = torch.linalg.svd(scale * square)
    within = scale * torch.rand(len(groups), dtype=torch.float64, generator=generator)
    return BlockSpectrum(groups, within, values, left, right.T.contiguous())


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0, 20.0])
@pytest.mark.parametrize("slack", [1.0, 1.5, 10.0])
def test_agrees_with_the_dense_bound_at_any_logits(groups, scale, slack):
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        spectrum = random_spectrum(groups, scale, generator)
        group_counts = np.exp(np.linspace(3, 0, len(groups)))
        counts = np.empty(spectrum.num_classes)
        for count, classes in zip(group_counts, groups, strict=True):
            counts[list(classes)] = count
        tau = slack * spectrum.nuclear_norm
        certificate, log_objective = certify(spectrum, group_counts.tolist(), tau)
        value = objective(spectrum.matrix, counts)
        assert certificate.objective == pytest.approx(value, rel=1e-12)
        assert log_objective == pytest.approx(math.log(value), abs=1e-12)
        dense = lower_bound(spectrum.matrix, counts, tau)
        assert certificate.lower_bound == pytest.approx(dense, rel=1e-8, abs=1e-8)
        assert certificate.lower_bound <= certificate.objective


def test_is_finite_where_the_objective_underflows():
    none = torch.zeros(1, 0, dtype=torch.float64)
    within = torch.tensor([2000.0], dtype=torch.float64)
    spectrum = BlockSpectrum(((0, 1, 2),), within, none[0], none, none)
    certificate, log_objective = certify(spectrum, [1.0], 4000.0)
    assert certificate.objective == certificate.lower_bound == 0.0
    assert log_objective == pytest.approx(math.log(2) - 2000)
    assert certificate.gap < 1e-9
    # The same logits under a wider budget are not optimal, and it shows.
    assert certify(spectrum, [1.0], 4040.0)[0].gap > 0.5
