import math

import numpy as np
import pytest

from layerpeel.program.closed import (
    collapse_count,
    smallest_safe_count,
    solve_orthogonal_frames,
)
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.mse import MSE
from tests.program.closed.programs import GAP_TOL
from tests.program.reference import cvxpy_solve, make_program


def published(depth, total, product):
    factor = depth**2 * (depth - 1) ** (-(depth - 1) / depth) if depth > 1 else 1.0
    return factor * total ** ((depth + 1) / depth) * product ** (1 / depth)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_published_count_per_sample(depth):
    decay = tuple(np.geomspace(1e-3, 4e-4, depth + 1))
    value = collapse_count(total=300.0, weight_decay=decay, loss="mse")
    assert value == pytest.approx(published(depth, 300.0, math.prod(decay)), rel=1e-12)


@pytest.mark.parametrize("per", ["sample", "class"])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_squared_error_collapses_up_to_the_count(depth, per, factor):
    total, K = 100.0, 5
    decay = (2e-3,) * (depth + 1) if per == "sample" else (3e-2,) * (depth + 1)
    count = collapse_count(
        total=total,
        weight_decay=Decay(*decay[:-1], features=decay[-1], per=per),
        loss=MSE(),
    )
    rare = count * factor
    counts = [(total - rare) / (K - 1)] * (K - 1) + [rare]
    program = make_program(counts, loss="mse", decay=decay, per=per)
    logits = solve_orthogonal_frames(program, GAP_TOL).logits
    assert (logits[-1, -1] == 0) == (factor < 1)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"bias": "free"},
        {"bias": 0.1},
        {"per": "class"},
        {"smoothing": 0.2},
        {"offset": [0.3, 0.3, 0.0, 0.0]},
    ],
    ids=str,
)
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_cross_entropy_collapses_up_to_the_count(case, factor):
    total, decay = 40.0, (0.03, 0.05)
    count = collapse_count(
        total=total,
        weight_decay=Decay(0.03, features=0.05, per=case.get("per", "sample")),
        loss=CrossEntropy(smoothing=case.get("smoothing", 0.0)),
    )
    rare = count * factor
    counts = [total / 2 - rare] * 2 + [rare] * 2
    _, logits, _ = cvxpy_solve(make_program(counts, decay=decay, **case))
    spread = abs(logits[2, 2] - logits[3, 2])
    assert (spread < 1e-3) == (factor < 1)


def test_safe_count_is_the_next_integer():
    # 10/3 = lam_W, chosen so that the count is 300 up to rounding: 300 collapses.
    total = 3000.0
    for lam_W in (10 / 3 / 1e5, (10 / 3) * 1e-5, 1 / 30000):
        decay = (lam_W, 1.0)
        assert collapse_count(total=total, weight_decay=decay) == pytest.approx(300)
        assert smallest_safe_count(total=total, weight_decay=decay) == 301
    assert smallest_safe_count(total=100, weight_decay=(1e-3, 1e-3)) == 1
    assert smallest_safe_count(total=100, weight_decay=(0.055, 0.1)) == 56
    assert smallest_safe_count(total=100, weight_decay=(1.0, 1.0)) == 10_001


def test_deeper_is_less_safe():
    counts = [
        smallest_safe_count(total=1000, weight_decay=(1e-3,) * (depth + 1), loss="mse")
        for depth in (1, 2, 3, 6)
    ]
    assert counts == sorted(counts)
    assert counts[0] == 2


def test_extreme_totals():
    assert collapse_count(total=1e200, weight_decay=(1e300, 1e300)) == math.inf
    assert collapse_count(total=1e-200, weight_decay=(1e-300, 1e-300)) == 0
    assert smallest_safe_count(total=1e-200, weight_decay=(1e-300, 1e-300)) == 1
    with pytest.raises(ValueError, match="finite count"):
        smallest_safe_count(total=1e200, weight_decay=(1e300, 1e300))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total": 0}, "`total` must be a finite number above 0"),
        ({"total": math.nan}, "`total` must be a finite number above 0"),
        ({"weight_decay": (0.1, 0.1, 0.1)}, "one layer for the cross-entropy"),
        ({"weight_decay": (0.1,)}, "at least two decays"),
        ({"weight_decay": (-0.1, 0.1)}, "above 0"),
        ({"loss": "hinge"}, "'cross_entropy', 'mse'; got 'hinge'"),
        ({"loss": CrossEntropy(scale=[1, 2])}, "treat all classes alike"),
    ],
    ids=str,
)
def test_rejects_bad_input(change, message):
    arguments = {"total": 100, "weight_decay": (0.1, 0.1)} | change
    with pytest.raises(ValueError, match=message):
        smallest_safe_count(**arguments)
