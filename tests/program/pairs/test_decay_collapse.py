import math

import pytest

from layerpeel.program.decay import Decay
from layerpeel.program.pairs.decay_collapse import log_decay_collapse

DECAY = Decay(0.01, features=0.04)  # lam_W lam_H = 4e-4
PER_CLASS = Decay(0.01, features=0.04, per="class")

# What is fixed, and the samples of one class of each group at a ratio.
CASES = {
    "total": ({"total": 100.0}, lambda R: (100 * R / (2 * R + 3), 100 / (2 * R + 3))),
    "majority": ({"majority_samples": 50.0}, lambda R: (50.0, 50 / R)),
    "minority": ({"minority_samples": 5.0}, lambda R: (5 * R, 5.0)),
}


def collapses(n_A, n_B):
    return n_B <= (2 * n_A + 3 * n_B) ** 2 * 4e-4


@pytest.mark.parametrize(("given", "counts"), CASES.values(), ids=CASES.keys())
def test_is_where_counts_begin_to_collapse(given, counts):
    threshold = math.exp(log_decay_collapse(2, 3, DECAY, **given))
    for factor in (1.001, 2.0, 100.0):
        assert collapses(*counts(threshold * factor))
    if threshold > 1.001:
        assert not collapses(*counts(threshold / 1.001))


def test_decay_per_class_compares_frequencies():
    threshold = math.exp(log_decay_collapse(2, 3, PER_CLASS))
    assert 1 / (2 * threshold + 3) == pytest.approx(math.sqrt(4e-4))


def test_strong_decay_collapses_at_every_ratio():
    strong = Decay(1.0, features=1.0)
    for given, _ in CASES.values():
        assert log_decay_collapse(2, 3, strong, **given) == 0.0


def test_few_majority_samples_collapse_at_both_ends():
    # (K_A R + K_B)^2 = R / (mu^2 n_A), multiplied out, has these two roots.
    K_A, K_B, n_A = 1, 40, 1.0
    threshold = math.exp(log_decay_collapse(K_A, K_B, DECAY, majority_samples=n_A))
    middle = 2 * K_A * K_B - 1 / (4e-4 * n_A)
    roots = [
        (-middle + sign * math.sqrt(middle**2 - 4 * (K_A * K_B) ** 2)) / (2 * K_A**2)
        for sign in (-1, 1)
    ]
    assert threshold == pytest.approx(roots[1])
    assert (K_B / K_A) ** 2 / threshold == pytest.approx(roots[0])
