import math
import re

import numpy as np
import pytest

from layerpeel._checks import UndefinedWarning
from layerpeel._tolerances import OVERSAMPLING_MARGIN
from layerpeel.geometry import split_classes
from layerpeel.program import (
    Energy,
    PeeledProblem,
    collapse_threshold,
    oversampling,
    vanishing_threshold,
)
from layerpeel.program.floor import FloorPath
from tests.program.layer_peeled_reference import counts_of, mean_cosine, solve_nuclear

ENERGY = (1.0, 5.0)


def cosine_at(majority, minority, ratio, energy=ENERGY):
    counts = counts_of(majority, minority, ratio)
    solution = PeeledProblem(counts, energy=energy).solve()
    gram = solution.geometry.classifier_gram[majority:, majority:]
    return mean_cosine(gram.numpy())


CASES = {
    # K_A, K_B, R, target
    "collapsed": (5, 5, 100.0, 0.0),
    "not collapsed": (3, 7, 100.0, 0.05),
    "default target": (5, 5, 8.0, None),
    "one majority class": (1, 4, 1e5, 0.3),
    "target nearly one": (5, 5, 100.0, 0.999),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@cases
def test_is_the_least_rate_that_reaches_the_target(case):
    majority, minority, ratio, target = case
    counts = counts_of(majority, minority, ratio)
    plan = oversampling(counts, energy=ENERGY, target=target)
    if target is None:
        target = -1 / (majority + minority - 1) + OVERSAMPLING_MARGIN
    assert plan.target == target
    assert 1 < plan.rate < ratio
    reached = cosine_at(majority, minority, ratio / plan.rate)
    assert reached == pytest.approx(target, abs=1e-9)
    assert cosine_at(majority, minority, ratio / (plan.rate * 0.99)) > target


@cases
def test_repeats_round_up_and_predict_for_the_rounded_rate(case):
    majority, minority, ratio, target = case
    counts = counts_of(majority, minority, ratio)
    plan = oversampling(counts, energy=ENERGY, target=target)
    assert plan.repeats == math.ceil(plan.rate)
    after = cosine_at(majority, minority, max(ratio / plan.repeats, 1.0))
    assert plan.predicted_cosine_after == pytest.approx(after, abs=1e-12)
    assert plan.predicted_cosine_after <= plan.target
    before = cosine_at(majority, minority, ratio)
    assert plan.predicted_cosine_before == pytest.approx(before, abs=1e-12)


def test_rates_and_facts_keep_the_places_of_the_classes():
    plan = oversampling([10, 500, 10, 500, 10], energy=ENERGY, target=0.2)
    assert plan.rates == (plan.rate, 1.0, plan.rate, 1.0, plan.rate)
    assert plan.ratio == pytest.approx(50)
    kwargs = {"majority": 2, "minority": 3, "energy": ENERGY}
    assert plan.threshold == pytest.approx(collapse_threshold(**kwargs))
    assert plan.log_threshold == pytest.approx(math.log(plan.threshold))
    assert "fixed energies" in plan.note
    assert plan.minority == (0, 2, 4)


@pytest.mark.parametrize(("factor", "lifts"), [(0.98, False), (1.02, True)])
def test_says_whether_it_lifts_a_collapse(factor, lifts):
    ratio = factor * collapse_threshold(majority=5, minority=5, energy=ENERGY)
    plan = oversampling(counts_of(5, 5, ratio), energy=ENERGY)
    assert plan.lifts_collapse is lifts
    assert (plan.predicted_cosine_before == 1.0) is lifts


def test_the_balanced_cosine_needs_the_full_ratio():
    plan = oversampling(counts_of(4, 4, 12.5), energy=ENERGY, target=-1 / 7)
    assert plan.rate == pytest.approx(12.5)
    assert plan.repeats == 13
    # Thirteen repeats would overshoot: the prediction is that of balance.
    assert plan.predicted_cosine_after == pytest.approx(-1 / 7, abs=1e-12)


def test_a_whole_rate_is_not_rounded_up_by_an_ulp():
    plan = oversampling(counts_of(4, 4, 100.0), energy=ENERGY, target=-1 / 7)
    assert plan.repeats == 100


def test_balanced_counts_need_nothing():
    plan = oversampling([7, 7, 7], energy=ENERGY)
    assert plan.rates == (1.0, 1.0, 1.0)
    assert (plan.rate, plan.repeats, plan.ratio) == (1.0, 1, 1.0)
    assert plan.predicted_cosine_before == plan.predicted_cosine_after == -0.5
    assert plan.threshold == math.inf
    assert plan.lifts_collapse is False


def test_a_met_target_needs_nothing():
    plan = oversampling(counts_of(5, 5, 2.0), energy=ENERGY, target=0.5)
    assert (plan.rate, plan.repeats) == (1.0, 1)
    assert plan.predicted_cosine_after == plan.predicted_cosine_before < 0.5


def test_a_vanished_minority_has_no_cosine_before_and_one_after():
    with pytest.warns(UndefinedWarning, match="predicted to be zero"):
        plan = oversampling(counts_of(7, 3, 50.0), energy=ENERGY, target=0.0)
    assert math.isnan(plan.predicted_cosine_before)
    assert plan.lifts_collapse
    reached = cosine_at(7, 3, 50.0 / plan.rate)
    assert reached == pytest.approx(0.0, abs=1e-9)


def test_more_energy_needs_less_oversampling():
    rates = [
        oversampling(counts_of(5, 5, 50.0), energy=(1.0, e), target=0.0).rate
        for e in (4.0, 16.0)
    ]
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize("target", [-0.2, 1.0, math.nan])
def test_a_target_out_of_reach_names_the_range(target):
    with pytest.raises(ValueError, match=r"\[-0\.111111, 1\).*got"):
        oversampling(counts_of(5, 5, 3.0), energy=ENERGY, target=target)


@pytest.mark.parametrize(
    ("counts", "energy", "message"),
    [
        ([9, 9, 1], ENERGY, "at least 2 classes; got class 2 alone"),
        ([1, 2, 3], ENERGY, "at least 2 classes; got class 0 alone"),
        ([1, -2], ENERGY, "above 0"),
        ([2, 2, 1, 1], (0.0, 1.0), "energy"),
    ],
    ids=str,
)
def test_rejects_bad_input(counts, energy, message):
    with pytest.raises(ValueError, match=message):
        oversampling(counts, energy=energy)


@pytest.mark.parametrize("side", [0.98, 1.02])
def test_the_rate_of_a_single_rare_class_is_where_it_comes_back(side):
    counts = [50.0] * 5 + [5.0]
    vanishing = vanishing_threshold(majority=5, minority=1, energy=ENERGY)
    with pytest.raises(ValueError, match="class 5 alone") as caught:
        oversampling(counts, energy=ENERGY)
    (said,) = re.findall(r"more than R / R1 = ([\d.]+) times", str(caught.value))
    assert f"R1 = {vanishing:.4g} on, and R = 10:" in str(caught.value)
    counts[-1] *= side * float(said)
    norm = PeeledProblem(counts, energy=ENERGY).solve().geometry.classifier_norms[-1]
    assert (float(norm) > 0.01) is (side > 1)
    assert (float(norm) == 0) is (side < 1)


@pytest.mark.parametrize(
    ("counts", "energy", "keywords", "said"),
    [
        ([30.0] * 5 + [5.0], ENERGY, {}, "R1 = 6.259 on; R = 6 is below"),
        ([50.0] * 3 + [5.0], ENERGY, {}, "never vanishes at these energies"),
        ([50.0] * 5 + [5.0], Energy(1, 5, per="sample"), {}, "vanish all the same"),
        ([60.0, 50.0, 40.0, 5.0], ENERGY, {}, "vanish all the same"),
        ([50.0] * 5 + [5.0] * 2, ENERGY, {"minority": [6]}, "vanish all the same"),
        ([1e300] * 5 + [1e-300], ENERGY, {}, "to bring it back"),
    ],
    ids=str,
)
def test_what_a_single_rare_class_does_is_said(counts, energy, keywords, said):
    with pytest.raises(ValueError, match="at least 2 classes") as caught:
        oversampling(counts, energy=energy, **keywords)
    assert said in str(caught.value)
    assert "does not concern" not in str(caught.value)


# Any counts

TAIL = [80.0, 3.0, 30.0, 1.0, 10.0]


def test_a_long_tail_is_lifted_to_one_floor_that_reaches_the_target():
    plan = oversampling(TAIL, energy=ENERGY, target=0.1)
    assert plan.rates == tuple(max(1.0, plan.floor / count) for count in TAIL)
    assert plan.rate == plan.rates[3] == plan.floor
    assert plan.repeats == math.ceil(plan.rate)
    effective = [n * r for n, r in zip(TAIL, plan.rates, strict=True)]
    # Counts 3 and 1 lie below the widest gap, which is the most central of equals.
    block = list(split_classes(TAIL).minority)
    for counts, said in (
        (TAIL, plan.predicted_cosine_before),
        (effective, plan.predicted_cosine_after),
    ):
        logits = solve_nuclear(counts, ENERGY)[1]
        U, S, _ = np.linalg.svd(logits)
        gram = ((U * S) @ U.T)[np.ix_(block, block)]
        assert said == pytest.approx(mean_cosine(gram), abs=1e-3)
    assert plan.predicted_cosine_after == pytest.approx(0.1, abs=1e-5)


def test_counts_that_are_nearly_two_groups_get_the_rate_of_two_groups():
    counts = counts_of(3, 3, 60.0)
    pair = oversampling(counts, energy=ENERGY, target=0.0)
    counts[5] *= 1 + 1e-8
    plan = oversampling(counts, energy=ENERGY, target=0.0)
    assert plan.rate == pytest.approx(pair.rate, rel=1e-5)
    assert plan.floor == pytest.approx(pair.floor, rel=1e-5)
    assert plan.lifts_collapse
    assert pair.lifts_collapse
    assert plan.threshold == pytest.approx(pair.threshold, rel=1e-5)
    assert plan.log_threshold == pytest.approx(pair.log_threshold, abs=1e-5)
    assert plan.ratio == pytest.approx(pair.ratio, rel=1e-7)


def test_without_a_collapse_there_is_no_threshold_for_a_long_tail():
    plan = oversampling(TAIL, energy=(1.0, 40.0))
    assert plan.lifts_collapse is False
    assert math.isnan(plan.threshold)
    assert plan.rate > 1  # apart, and yet drawn together


def test_the_minority_can_be_named():
    # A single minority class has no cosine; the three rarest have.
    counts = [80.0, 70.0, 60.0, 50.0, 1.0]
    with pytest.raises(ValueError, match="class 4 alone"):
        oversampling(counts, energy=ENERGY)
    plan = oversampling(counts, energy=ENERGY, minority=[4, 3, 2])
    assert (
        plan.predicted_cosine_after <= plan.target + 1e-6 < plan.predicted_cosine_before
    )
    with pytest.raises(ValueError, match=r"class indices in \[0, 5\).*got 4, 5"):
        oversampling(counts, energy=ENERGY, minority=[4, 5])
    with pytest.raises(ValueError, match="each once"):
        oversampling(counts, energy=ENERGY, minority=[4, 4])


def test_naming_the_rarer_of_two_groups_changes_nothing():
    counts = counts_of(3, 3, 20.0)
    named = oversampling(counts, energy=ENERGY, minority=[5, 3, 4])
    assert named == oversampling(counts, energy=ENERGY)


def test_counts_near_balance_are_judged_by_all_classes():
    plan = oversampling([10.0, 11.0, 12.0, 13.0], energy=ENERGY)
    assert plan.rates == (1.0,) * 4
    assert plan.predicted_cosine_before == pytest.approx(-1 / 3, abs=0.01)


def test_a_tail_that_vanishes_has_no_cosine_before_and_one_after():
    with pytest.warns(UndefinedWarning, match="predicted to be zero"):
        plan = oversampling([500.0] * 5 + [2.0, 1.0], energy=(1.0, 0.5), target=0.5)
    assert math.isnan(plan.predicted_cosine_before)
    assert plan.predicted_cosine_after == pytest.approx(0.5, abs=1e-5)


def test_budgets_per_sample_are_solved_too():
    energy = Energy(1.0, 5.0, per="sample")
    plan = oversampling(counts_of(2, 2, 60.0), energy=energy, target=0.3)
    effective = [60.0] * 2 + [plan.floor] * 2
    reached = PeeledProblem(effective, energy=energy).solve(1e-11).geometry
    assert reached.block_cosine([2, 3]) == pytest.approx(0.3, abs=1e-5)


TWO_GROUPS_BY_FLOOR = {
    "per sample": ([500.0] * 4 + [10.0] * 6, Energy(1, 5, per="sample"), None),
    "another minority": ([500.0] * 4 + [10.0] * 4, Energy(1, 5), [3, 4, 5, 6, 7]),
    "beyond balance": ([45.0] * 3 + [10.0] * 3, Energy(1, 2, per="sample"), None),
}


@pytest.mark.parametrize("case", TWO_GROUPS_BY_FLOOR.values(), ids=TWO_GROUPS_BY_FLOOR)
def test_two_groups_by_their_floor_predict_for_whole_repeats(case):
    counts, energy, minority = case
    target = 0.2 if counts[0] > 100 else -0.1999
    plan = oversampling(counts, energy=energy, target=target, minority=minority)
    assert plan.rate < plan.repeats == math.ceil(plan.rate)
    lifted = [n if n > 10 else min(counts[0], n * plan.repeats) for n in counts]
    reached = PeeledProblem(lifted, energy=energy).solve(1e-11).geometry
    after = reached.block_cosine(plan.minority)
    assert plan.predicted_cosine_after == pytest.approx(after, abs=1e-9)
    assert plan.predicted_cosine_after < target - 1e-5


def test_many_distinct_counts_take_few_solves(monkeypatch):
    solved = []
    solve = FloorPath._solve
    monkeypatch.setattr(
        FloorPath,
        "_solve",
        lambda self, floor: solved.append(floor) or solve(self, floor),
    )
    plan = oversampling(np.geomspace(1280, 5, 9), energy=(1.0, 6.0))
    assert len(solved) == len(set(solved)) <= 40
    assert plan.predicted_cosine_after == pytest.approx(plan.target, abs=1e-5)
