import json
import math

import pytest

from layerpeel.geometry import split_classes
from layerpeel.program import Decay, Energy, PeeledProblem, vanishing_threshold
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


IMPOSSIBLE = {
    "all alike": ([50.0] * 5, {"weight_decay": (1, 1)}),
    "two groups": ([500.0] * 5 + [50] * 5, {"weight_decay": (0.1, 0.1)}),
    "squared error": ([40.0] * 4, {"weight_decay": (1, 0.1), "loss": "mse"}),
}


@pytest.mark.parametrize("case", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_counts_that_the_total_does_not_allow_are_not_advised(case):
    counts, keywords = case
    found = advice(counts, **keywords)
    assert found.smallest_count is None
    assert not any("Give every class" in said for said in found.sentences)
    assert found.sentences[0].startswith("No counts at this total lift every class")
    # What is advised instead helps.
    lam_W, _ = keywords["weight_decay"]
    less = keywords | {"weight_decay": (lam_W, 0.98 * found.largest_decay / lam_W)}
    assert not is_collapsed(counts, **less)


def test_counts_are_advised_up_to_the_last_that_the_total_allows():
    # Two classes that merge at 9.9 of 20 samples need 10 each, at 10.1 they need 11.
    for merges_at, smallest in ((9.9, 10), (10.1, None)):
        decay = (math.sqrt(merges_at) / 20,) * 2
        assert advice([16, 4], weight_decay=decay).smallest_count == smallest


def test_a_class_that_does_not_collapse_by_itself_is_not_said_to():
    counts, decay = [100.0] * 3 + [1], (1e-3, 3e-2)
    assert "two or more classes of" in advice(counts, weight_decay=decay).sentences[0]
    alone = advice(counts, weight_decay=decay, loss="mse").sentences[0]
    assert "two or more" not in alone
    assert "classes of" in alone


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


def test_the_classes_that_are_drawn_more_often_are_named():
    weights = [1.0] * 4 + [100.0] * 4
    found = advice(COUNTS, energy=(1, 5), class_weights=weights)
    # Per class, 500 samples of weight 1 are less than 20 of weight 100.
    assert found.oversampling.minority == (0, 1, 2, 3)
    said = f"every sample of the 4 classes of 500 samples {found.oversampling.repeats} "
    assert said in found.sentences[0]
    behind = advice(
        COUNTS, energy=(1, 0.1), class_weights=weights, features="nonnegative"
    )
    assert "the 4 classes of 500 samples" in behind.sentences[0]


def test_classes_of_the_same_count_are_told_apart_by_index():
    weights = [1.0, 9, 1, 9, 1, 9]
    found = advice([50] * 6, energy=(1, 1), class_weights=weights)
    said = "the 3 classes of 50 samples with indices 0, 2, 4 "
    assert said in found.sentences[0]


def test_no_oversampling_names_the_classes_too():
    found = advice([60] * 4 + [50] * 4, energy=(1, 20))
    assert found.oversampling.rate == 1
    assert "between the 4 classes of 50 samples is" in found.sentences[0]


def test_a_single_rare_class_is_told_the_rate_that_brings_it_back():
    least = 10 / vanishing_threshold(majority=5, minority=1, energy=(1, 5))
    (said,) = advice([50] * 5 + [5], energy=(1, 5)).sentences
    assert f"R / R1 = {least:.4g} times" in said
    assert "does not concern" not in said


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
    minority = split_classes(counts).minority
    assert found.oversampling.minority == minority
    rare = [counts[k] for k in minority]
    named = f"the {len(rare)} classes of {max(rare)} to {min(rare)} samples"
    assert f"of the minority, {named}," in found.sentences[0]


def test_with_class_weights_a_floor_is_not_one_of_samples():
    counts, weights = [500, 200, 80, 30, 12, 5], [1, 1, 1, 1, 1, 2]
    found = advice(counts, energy=(1, 5), class_weights=weights)
    assert "at the `rates` of this advice" in found.sentences[0]
    assert "as if every class" not in found.sentences[0]


@pytest.mark.parametrize(
    ("counts", "keywords", "said"),
    [
        ([5] * 4, {"energy": (1, 5)}, "nothing to balance"),
        (COUNTS, {"energy": (1, 5), "bias": "free"}, "No sampling rate"),
        (COUNTS, {"energy": (1, 5), "loss": "mse"}, "No sampling rate"),
        ([50] * 3 + [5], {"energy": (1, 5)}, "at least 2 classes"),
        ([9, 5, 3], {"energy": (1, 5), "features": "nonnegative"}, "No sampling rate"),
        (COUNTS, {"energy": Energy(1, 5, "sample")}, "Draw every sample of the 4 "),
    ],
    ids=str,
)
def test_what_theory_does_not_give_is_said(counts, keywords, said):
    found = advice(counts, **keywords)
    assert said in found.sentences[0]
    assert (found.oversampling is None) == ("Draw" not in said)
    json.dumps(found.to_dict(), allow_nan=False)
