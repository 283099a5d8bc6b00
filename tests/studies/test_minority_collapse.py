"""The demo's story, in full: it takes seconds."""

import json

import pytest
import torch

from layerpeel.datasets import load_digits
from layerpeel.program import PeeledProblem
from layerpeel.studies.minority_collapse import Settings, imbalanced_digits, run
from tests.browser import inspect_page

BALANCED_COSINE = -1 / 9


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("demo"), seed=0, progress=False)


def test_training_and_held_out_digits_do_not_overlap():
    split = imbalanced_digits(Settings(), seed=0)
    assert not set(split.train.tolist()) & set(split.test.tolist())
    counts = split.labels[split.train].bincount().tolist()
    assert counts[5:] == [4] * 5
    assert min(counts[:5]) > 120
    shares = split.labels[split.test].bincount() / load_digits().labels.bincount()
    torch.testing.assert_close(shares, torch.full((10,), 0.25), atol=0.01, rtol=0)


def test_both_trainings_end_where_the_loss_is_stationary(result):
    assert result.before.stationary
    assert result.after.stationary


def test_the_minority_is_lost_and_its_classifiers_have_drawn_together(result):
    report = result.comparison.first
    recall = report.measurement.eval_confusion.class_accuracy
    assert recall[5:].mean() < 0.1
    assert recall[:5].mean() > 0.95
    assert report.measurement.minority_cosine > BALANCED_COSINE + 0.1
    assert {"LP001", "LP002"} <= {finding.code for finding in report.findings}


def test_the_advised_rate_is_the_least_that_reaches_the_target(result):
    report = result.comparison.first
    advice, counts = report.advice, report.predictions.class_counts
    energy = report.measurement.energy()

    def cosine_at(rate):
        effective = [n if k < 5 else n * rate for k, n in enumerate(counts)]
        solution = PeeledProblem(effective, energy=energy).solve()
        return solution.geometry.block_cosine([5, 6, 7, 8, 9])

    assert (
        cosine_at(advice.rate)
        <= advice.oversampling.target
        < cosine_at(advice.rate - 1)
    )


def test_oversampling_parts_the_classifiers_and_brings_the_minority_back(result):
    comparison = result.comparison
    before, after = comparison.first.measurement, comparison.second.measurement
    assert after.minority_cosine < BALANCED_COSINE + 0.05 < before.minority_cosine
    assert after.eval_confusion.class_accuracy[5:].mean() > 0.6
    assert after.eval_accuracy > before.eval_accuracy + 0.3
    assert "LP001" in comparison.resolved
    # The second report counts what its loss counted.
    rate = comparison.first.advice.rate
    assert after.class_counts[5:] == (4 * rate,) * 5


def test_everything_is_written(result):
    directory = result.report_path.parent
    assert sorted(path.name for path in directory.iterdir()) == [
        "after.html",
        "before.html",
        "picture.svg",
        "report.html",
        "report.json",
    ]
    content = json.loads((directory / "report.json").read_text())
    assert content["first"]["measurement"]["class_counts"][5:] == [4] * 5


@pytest.mark.parametrize("page", ["report", "before", "after"])
def test_the_pages_open_in_a_browser(result, page):
    path = result.report_path.with_name(f"{page}.html")
    for width in (360, 1280):
        inspect_page(path, width, "dark" if page == "after" else "light")


def test_settings_without_a_minority_are_refused(tmp_path):
    with pytest.raises(ValueError, match="minority"):
        run(tmp_path, settings=Settings(minority=()), progress=False)
    assert list(tmp_path.iterdir()) == []
