import math

import pytest
import torch

import layerpeel
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import ENERGY_CONVENTIONS
from layerpeel.program import PeeledProblem
from layerpeel.reports.advice import advise
from layerpeel.reports.prediction import predict
from tests.reports.networks import balanced_network, network, predicted_network

BALANCED_COSINE = -1 / 9


def advice_for(measurement):
    return advise(measurement, predict(measurement))


def test_the_advised_rate_reaches_its_target_and_one_less_does_not():
    counts = [100] * 5 + [4] * 5
    measurement = predicted_network(counts, (1.5, 4.0), noise=0.05)
    advice = advice_for(measurement)
    energy = measurement.energy("sample_mean")

    def cosine_at(rate):
        effective = [100.0] * 5 + [4.0 * rate] * 5
        return (
            PeeledProblem(effective, energy=energy)
            .solve()
            .geometry.block_cosine([5, 6])
        )

    target = advice.oversampling.target
    assert BALANCED_COSINE < target < 0
    assert cosine_at(advice.rate) <= target < cosine_at(advice.rate - 1)
    assert advice.rates == (1,) * 5 + (advice.rate,) * 5
    assert advice.by_convention["sample_mean"] == advice.rate
    assert set(advice.by_convention) == {
        "sample_mean",
        "class_mean",
        "means_only",
        "uncentred",
    }


def test_the_command_applies_the_rates():
    advice = advice_for(predicted_network([100] * 2 + [4] * 2, (1.0, 4.0)))
    rate = advice.rate
    assert advice.command == (
        f"indices = lp.oversampled_indices(labels, rates=[1, 1, {rate}, {rate}])"
    )


def test_balanced_classes_get_no_advice():
    assert advice_for(balanced_network([20] * 4)) is None


def test_a_named_minority_that_is_more_frequent_is_not_oversampled():
    assert advice_for(balanced_network([10, 10, 100, 100], minority=[2, 3])) is None


def test_counts_near_balance_leave_nothing_to_advise():
    assert advice_for(balanced_network([135, 135, 100, 100], minority=[2, 3])) is None


def test_where_theory_asks_for_nothing_the_advice_says_so_and_balances():
    # Long classifiers and features: the optimum is near the ETF at any mild imbalance.
    counts = [20] * 3 + [10] * 3
    frame = 40 * simplex_etf(6, 16)

    advice = advice_for(network(counts, frame, frame))
    assert advice.oversampling.repeats == 1
    assert advice.rates == (1, 1, 1, 2, 2, 2)
    assert "does not explain" in advice.reason


def test_where_theory_gives_no_rate_the_classes_are_balanced():
    advice = advice_for(balanced_network([100, 100, 100, 5]))
    assert advice.oversampling is None
    assert advice.rates == (1, 1, 1, 20)
    assert "single minority class" in advice.reason


TAIL = [120, 50, 22, 9, 4]


@pytest.fixture(scope="module")
def tail():
    # The counts alone would call two classes the minority.
    measurement = predicted_network(TAIL, (1.2, 3.0), noise=0.05, minority=[2, 3, 4])
    return measurement, advice_for(measurement)


def test_a_long_tail_is_lifted_to_the_least_count_that_reaches_the_target(tail):
    measurement, advice = tail
    plan = advice.oversampling
    floor, target = plan.floor, plan.target
    energy = measurement.energy("sample_mean")

    def cosine_at(floor):
        effective = [max(count, floor) for count in TAIL]
        geometry = PeeledProblem(effective, energy=energy).solve(1e-11).geometry
        return geometry.block_cosine([2, 3, 4])

    assert cosine_at(floor * 1.001) <= target < cosine_at(floor * 0.999)
    for rate, count in zip(advice.rates, TAIL, strict=True):
        assert rate == pytest.approx(max(1, floor / count), abs=0.0101)
        assert rate * count >= min(floor, count) - 1e-3
    assert f"{floor:.4g} samples" in advice.action
    assert "classes are at or below it" in advice.reason
    assert "log R0" not in advice.reason
    rates = advice.by_convention
    assert set(rates) == set(ENERGY_CONVENTIONS)
    assert rates["sample_mean"] == math.ceil(floor / 4)
    # The others are found more coarsely; less energy asks for more.
    means_only = PeeledProblem(
        [max(count, rates["means_only"] * 4) for count in TAIL],
        energy=measurement.energy("means_only"),
    )
    reached = means_only.solve().geometry.block_cosine([2, 3, 4])
    assert reached <= target + 1e-4
    ordered = sorted(rates, key=lambda name: math.prod(measurement.energy(name)))
    assert [rates[name] for name in ordered] == sorted(rates.values(), reverse=True)


def test_the_command_of_a_long_tail_lifts_classes_on_average(tail):
    advice = tail[1]
    names = {"lp": layerpeel, "torch": torch}
    labels = torch.arange(5).repeat_interleave(1000 * torch.tensor(TAIL))
    exec(advice.command, names | {"labels": labels}, found := {})
    drawn = labels[found["indices"]].bincount() / 1000
    expected = [max(n, advice.oversampling.floor) for n in TAIL]
    assert drawn.tolist() == pytest.approx(expected, rel=0.02)


def test_a_class_without_samples_is_not_oversampled():
    with pytest.warns(UserWarning, match="samples"):
        measurement = balanced_network([50, 50, 2, 0])
    assert advice_for(measurement).rates == (1, 1, 25, 1)
