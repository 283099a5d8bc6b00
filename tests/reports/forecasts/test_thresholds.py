import json
import math

import pytest

from layerpeel.program import (
    CrossEntropy,
    Energy,
    PeeledProblem,
    collapse_threshold,
    vanishing_threshold,
)
from layerpeel.program.closed import nonnegative_collapse_threshold
from layerpeel.reports.forecasts.thresholds import thresholds

COUNTS = [300] * 7 + [50] * 3
SIZES = {"majority": 7, "minority": 3, "energy": (1.0, 5.0)}


def test_thresholds_of_free_features():
    said = thresholds(PeeledProblem(COUNTS, energy=(1, 5)))
    assert (said.majority, said.minority) == (7, 3)
    assert said.ratio == pytest.approx(6)
    assert said.collapse == pytest.approx(collapse_threshold(**SIZES))
    assert said.vanishing == pytest.approx(vanishing_threshold(**SIZES))


def test_thresholds_behind_a_relu():
    said = thresholds(PeeledProblem(COUNTS, energy=(1, 5), features="nonnegative"))
    assert said.collapse == pytest.approx(nonnegative_collapse_threshold(**SIZES))
    assert said.vanishing is None


def test_class_weights_act_like_counts():
    weights = [1] * 7 + [2] * 3
    said = thresholds(PeeledProblem(COUNTS, energy=(1, 5), class_weights=weights))
    assert said.ratio == pytest.approx(3)


def test_a_large_threshold_is_kept_as_a_logarithm():
    said = thresholds(PeeledProblem(COUNTS, energy=(1e4, 1e4)))
    assert said.collapse == math.inf
    assert 1e3 < said.log_collapse < math.inf
    assert json.loads(json.dumps(said.to_dict()))["collapse"] == "Infinity"


@pytest.mark.parametrize(
    "keywords",
    [
        {"weight_decay": (1e-3, 1e-3)},
        {"energy": Energy(1, 5, "sample")},
        {"energy": (1, 5), "bias": "free"},
        {"energy": (1, 5), "loss": "mse"},
        {"energy": (1, 5), "loss": CrossEntropy(smoothing=0.1)},
        {"energy": (1, 5), "loss": CrossEntropy(margin=[1] * 7 + [2] * 3)},
        {"energy": (1, 5), "width": 8},
        {"energy": (1, 5), "features": "nonnegative", "width": 9},
    ],
    ids=str,
)
def test_other_problems_have_no_formula(keywords):
    assert thresholds(PeeledProblem(COUNTS, **keywords)) is None


@pytest.mark.parametrize("counts", [[5, 5, 5], [5, 4, 3]])
def test_other_counts_have_no_formula(counts):
    assert thresholds(PeeledProblem(counts, energy=(1, 5))) is None
