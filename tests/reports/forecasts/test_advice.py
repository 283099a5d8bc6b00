import json
import math

import pytest

from layerpeel.program import Decay, Energy, PeeledProblem
from layerpeel.reports.forecasts import forecast

COUNTS = [500.0] * 4 + [20.0] * 4


def advice(counts, **keywords):
    return forecast(PeeledProblem(counts, **keywords)).advice


def is_collapsed(counts, **keywords):
    return forecast(PeeledProblem(counts, **keywords)).collapsed > 0


DECAYS = {
    "one layer": {"weight_decay": Decay(2e-3, features=1e-2)},
    "per class": {"weight_decay": Decay(0.09, features=0.1, per="class")},
    "behind a ReLU": {
        "weight_decay": Decay(2e-3, features=1e-2),
        "features": "nonnegative",
    },
    "squared error": {"weight_decay": Decay(2e-3, features=1e-2), "loss": "mse"},
    "two layers": {"weight_decay": Decay(1e-3, 1e-3, features=1e-3), "loss": "mse"},
    "three layers per class": {
        "weight_decay": Decay(1e-2, 1e-2, 1e-2, features=1e-2, per="class"),
        "loss": "mse",
    },
}


def scaled(keywords, product):
    """The same problem with the first decay chosen for a product of all."""
    decay = keywords["weight_decay"]
    rest = math.prod(decay.layers[1:]) * decay.features
    layers = (product / rest, *decay.layers[1:])
    changed = Decay(*layers, features=decay.features, per=decay.per)
    return keywords | {"weight_decay": changed}


@pytest.mark.parametrize("keywords", DECAYS.values(), ids=DECAYS.keys())
def test_the_largest_decay_is_where_collapse_begins(keywords):
    largest = advice(COUNTS, **keywords).largest_decay
    assert not is_collapsed(COUNTS, **scaled(keywords, 0.98 * largest))
    assert is_collapsed(COUNTS, **scaled(keywords, 1.02 * largest))


@pytest.mark.parametrize("keywords", DECAYS.values(), ids=DECAYS.keys())
def test_the_smallest_count_keeps_classes_apart_at_the_same_total(keywords):
    least = advice(COUNTS, **keywords).smallest_count
    half = sum(COUNTS) / 4
    assert 2 <= least < half / 2

    def with_rare(count):
        return [half - count] * 4 + [float(count)] * 4

    assert not is_collapsed(with_rare(least), **keywords)
    assert is_collapsed(with_rare(least - 1), **keywords)


def test_decay_is_said_in_words():
    collapsed = advice([500] * 4 + [1] * 4, weight_decay=(2e-3, 1e-2))
    assert "Give every class at least" in collapsed.sentences[0]
    fine = advice(COUNTS, weight_decay=(1e-6, 1e-6))
    assert fine.sentences[0].startswith("No class collapses")
    deep = advice(COUNTS, weight_decay=(1e-4, 1e-4, 1e-4))
    assert "No threshold is known" in deep.sentences[0]


def minority_cosine(counts, **keywords):
    problem = PeeledProblem(counts, **keywords)
    return problem.solve().geometry.block_cosine([4, 5, 6, 7])


def test_the_rate_reaches_its_target():
    plan = advice(COUNTS, energy=(1, 5)).oversampling
    repeated = COUNTS[:4] + [20.0 * plan.repeats] * 4
    fewer = COUNTS[:4] + [20.0 * (plan.repeats - 1)] * 4
    assert minority_cosine(repeated, energy=(1, 5)) <= plan.target + 1e-9
    assert minority_cosine(fewer, energy=(1, 5)) > plan.target


def test_class_weights_count_for_the_rate():
    weights = [1.0] * 4 + [5.0] * 4
    weighted = advice(COUNTS, energy=(1, 5), class_weights=weights).oversampling
    as_counts = advice(COUNTS[:4] + [100.0] * 4, energy=(1, 5)).oversampling
    assert weighted.rate == pytest.approx(as_counts.rate, rel=1e-9)


def test_the_rate_behind_a_relu_is_the_least_that_lifts():
    keywords = {"energy": (1, 3), "features": "nonnegative"}
    counts = [900.0] * 4 + [10.0] * 4
    (said, _) = advice(counts, **keywords).sentences
    rate = int(said.split(" times")[0].split()[-1])
    assert rate > 1
    assert is_collapsed(counts[:4] + [10.0 * (rate - 1)] * 4, **keywords)
    assert not is_collapsed(counts[:4] + [10.0 * rate] * 4, **keywords)
    (said,) = advice([20.0] * 4 + [10.0] * 4, **keywords).sentences
    assert said.startswith("No oversampling is needed")


def test_a_long_tail_is_lifted_to_a_floor():
    counts = [500, 200, 80, 30, 12, 5]
    found = advice(counts, energy=(1, 5))
    assert found.oversampling.lifts_collapse
    assert f"at least {found.oversampling.floor:.4g}" in found.sentences[0]


@pytest.mark.parametrize(
    ("counts", "keywords", "said"),
    [
        ([5] * 4, {"energy": (1, 5)}, "nothing to balance"),
        (COUNTS, {"energy": (1, 5), "bias": "free"}, "No sampling rate"),
        (COUNTS, {"energy": (1, 5), "loss": "mse"}, "No sampling rate"),
        ([50] * 3 + [5], {"energy": (1, 5)}, "at least 2 classes"),
        ([9, 5, 3], {"energy": (1, 5), "features": "nonnegative"}, "No sampling rate"),
        (COUNTS, {"energy": Energy(1, 5, "sample")}, "Draw every minority sample"),
    ],
    ids=str,
)
def test_what_theory_does_not_give_is_said(counts, keywords, said):
    found = advice(counts, **keywords)
    assert said in found.sentences[0]
    assert (found.oversampling is None) == ("Draw" not in said)
    json.dumps(found.to_dict(), allow_nan=False)
