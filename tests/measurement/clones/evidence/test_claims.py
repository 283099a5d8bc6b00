import math
import re

import pytest
import torch

from layerpeel.measurement.clones.evidence import claims
from layerpeel.measurement.clones.evidence.claims import (
    CLAIMS,
    FLOOR_FACTOR,
    shared_error,
)

nan = math.nan
CASES = {
    "interpolation": [
        # width, layer, error, error of the network
        ((64, 512, 0.001, 0.0005), True, "64 of 512.*0.001.*0.0005"),
        ((512, 512, 0.0005, 0.0005), False, "No chunk fits.*0.0005"),
        ((nan, 512, nan, 0.25), False, "0.25"),
        ((nan, 512, nan, nan), None, "no classifier"),
        ((64, 512, 0.5, nan), None, "no classifier"),
    ],
    "reconstruction": [
        # width, layer, R^2, that of an untrained copy, what was to be reached
        ((64, 512, 0.992, 0.4, 0.99), True, "64 of 512.*0.992.*untrained.*0.4"),
        ((64, 512, 0.992, 0.995, 0.99), False, "untrained.*0.995"),
        ((64, 512, 0.992, 0.99, 0.99), False, "0.99"),
        ((64, 512, 0.992, nan, 0.99), None, "no untrained copy"),
        ((512, 512, 1.0, 0.4, 0.99), False, "No chunk.*0.99"),
        ((nan, 512, nan, 0.4, 0.9), False, "No chunk.*0.9"),
    ],
    "independence": [
        # width, correlation, floor, random rotations, number of signals
        ((6400, 0.011, 0.008, 0.3, 1), True, "0.011.*noise 0.008.*rotations.*0.3"),
        ((6400, 0.008 * FLOOR_FACTOR, 0.008, nan, 1), True, "noise 0.008"),
        ((6400, 0.017, 0.008, 0.3, 1), False, "0.017"),
        ((64, 0.03, 0.008, nan, 1), True, "clones of 1 signals 0.0154"),
        ((64, 0.031, 0.008, nan, 1), False, "clones of 1 signals 0.0154"),
        ((64, nan, 0.008, 0.3, 1), None, "Too few"),
        ((64, 0.01, nan, 0.3, 1), None, "Too few"),
        ((64, 0.01, 0.008, 0.3, nan), None, "Too few"),
    ],
    "readout": [
        # width, layer, raw less folded error, slack
        ((64, 512, 0.0005, 0.001), True, "At 64 neurons.*0.0005"),
        ((64, 512, -0.02, 0.001), True, "-0.02"),
        ((64, 512, 0.3, 0.001), False, "0.3"),
        ((512, 512, 0.0, 0.001), None, "no chunk"),
        ((nan, 512, 0.0, 0.001), None, "no chunk"),
        ((64, 512, nan, 0.001), None, "no chunk"),
    ],
}
FLAT = [(name, *case) for name, cases in CASES.items() for case in cases]


@pytest.mark.parametrize(("name", "arguments", "survives", "evidence"), FLAT)
def test_says_what_survives_and_with_what_numbers(name, arguments, survives, evidence):
    claim = getattr(claims, name)(*arguments)
    assert claim.name == name
    assert claim.survives is survives
    assert re.search(evidence, claim.evidence), claim.evidence
    assert claim.evidence.endswith(".")


def test_every_claim_has_a_statement():
    assert set(CASES) == set(CLAIMS)
    for name, cases in CASES.items():
        claim = getattr(claims, name)(*cases[0][0])
        assert claim.statement == CLAIMS[name]
        assert claim.to_dict() == {
            "name": name,
            "survives": True,
            "evidence": claim.evidence,
            "statement": CLAIMS[name],
        }


@pytest.mark.parametrize(("signals", "width"), [(1, 8), (2, 16), (4, 32), (8, 64)])
def test_noisy_clones_have_the_error_of_their_chunk_in_common(signals, width):
    generator = torch.Generator().manual_seed(signals)
    noise, others = 0.3, 200
    found = []
    for _ in range(20):  # the population covariance: no samples, and so no floor
        mixing = torch.randn(width + others, signals, generator=generator).double()
        mixing /= mixing.norm(dim=1, keepdim=True)
        whole = mixing @ mixing.T + noise**2 * torch.eye(width + others).double()
        read, rest = whole[:width, :width], whole[width:, :width]
        left = whole[width:, width:] - rest @ torch.linalg.solve(read, rest.T)
        scale = left.diagonal().rsqrt()
        correlation = (scale[:, None] * left * scale).abs()
        found.append((correlation.sum() - others) / (others * (others - 1)))
    mean = float(torch.stack(found).mean())
    assert mean == pytest.approx(shared_error(width, signals), rel=0.2)
