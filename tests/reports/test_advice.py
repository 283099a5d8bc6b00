import pytest

from layerpeel.geometry import simplex_etf
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


@pytest.mark.parametrize(
    ("counts", "cause"),
    [([100, 100, 100, 5], "single minority class"), ([100, 31, 10, 3], "mean")],
)
def test_where_theory_gives_no_rate_the_classes_are_balanced(counts, cause):
    advice = advice_for(balanced_network(counts))
    assert advice.oversampling is None
    assert advice.rates == tuple(round(max(counts) / count) for count in counts)
    assert cause in advice.reason


def test_a_class_without_samples_is_not_oversampled():
    with pytest.warns(UserWarning, match="samples"):
        measurement = balanced_network([50, 50, 2, 0])
    assert advice_for(measurement).rates == (1, 1, 25, 1)
