import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.pairs.decay_thresholds import decay_thresholds
from tests.program.reference import cvxpy_solve, make_program

CASES = [
    # K_A, K_B, n_A, n_B, per
    (2, 2, 20, 3, "sample"),
    (3, 2, 8, 2, "class"),
    (1, 3, 9, 2, "sample"),
    (3, 1, 9, 2, "sample"),
    (1, 1, 5, 2, "class"),
    (2, 3, 4, 3, "sample"),
]


def parts_at(case, product):
    """Spread of the minority's logits, norm of its features, norm of everything."""
    K_A, K_B, n_A, n_B, per = case
    c = math.sqrt(product)
    program = make_program([n_A] * K_A + [n_B] * K_B, decay=(c, c), per=per)
    _, logits, _ = cvxpy_solve(program)
    X = logits * program.feature_weights.numpy()
    minority = logits[:, K_A:]
    spread = minority - minority.mean(axis=1, keepdims=True)
    return {
        "minority_equal": np.linalg.norm(spread),
        "minority_zero": np.linalg.norm(X[:, K_A:]),
        "all_zero": np.linalg.norm(X),
    }


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("stage", ["minority_equal", "minority_zero", "all_zero"])
def test_each_stage_begins_at_its_threshold(case, stage):
    K_A, K_B, n_A, n_B, per = case
    counts = [n_A] * K_A + [n_B] * K_B
    threshold = getattr(decay_thresholds(counts, per=per), stage)
    if math.isinf(threshold):
        assert (stage, K_B) == ("minority_equal", 1)
        return
    # The interior-point solver stops about 1e-4 away from an exact zero.
    assert parts_at(case, 0.98 * threshold)[stage] > 5e-3
    assert parts_at(case, 1.02 * threshold)[stage] < 5e-4


@given(
    majority=st.integers(1, 1000),
    minority=st.integers(1, 1000),
    ratio=st.floats(1.001, 1e12),
    rare=st.floats(1e-3, 1e6),
    per=st.sampled_from(["sample", "class"]),
)
@settings(deadline=None)
def test_stages_come_in_order_and_scale_as_they_must(
    majority, minority, ratio, rare, per
):
    counts = [ratio * rare] * majority + [rare] * minority
    stages = decay_thresholds(counts, per=per)
    if minority > 1:
        assert stages.minority_equal < stages.minority_zero
    assert stages.minority_zero <= stages.all_zero * (1 + 1e-14)
    # n_g / N^2 falls with the number of samples, n_g^2 / N^2 does not.
    tenfold = decay_thresholds([10 * n for n in counts], per=per)
    factor = 10.0 if per == "sample" else 1.0
    assert tenfold.all_zero * factor == pytest.approx(stages.all_zero)
    assert tenfold.minority_zero * factor == pytest.approx(stages.minority_zero)


def test_balanced_classes_have_one_threshold():
    stages = decay_thresholds([30.0] * 4)
    assert stages.minority_equal == stages.minority_zero == stages.all_zero
    # The balanced closed form is zero from K sqrt(n lam_W lam_H) = 1 on.
    assert 4 * math.sqrt(30 * stages.all_zero) == pytest.approx(1)


def test_a_growing_ratio_leads_to_balanced_classes_continuously():
    near = decay_thresholds([30.0 * (1 + 1e-9)] * 2 + [30.0] * 2)
    balanced = decay_thresholds([30.0] * 4)
    for stage in ("minority_equal", "minority_zero", "all_zero"):
        assert getattr(near, stage) == pytest.approx(getattr(balanced, stage), rel=1e-8)


@pytest.mark.parametrize(
    ("counts", "per", "message"),
    [
        ([3, 2, 1], "sample", "two distinct"),
        ([3, 0], "sample", "above 0"),
        ([3, 1], "classes", "Did you mean 'class'"),
    ],
    ids=str,
)
def test_rejects_bad_input(counts, per, message):
    with pytest.raises(ValueError, match=message):
        decay_thresholds(counts, per=per)
