import copy
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from matplotlib.figure import Figure

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import measure_features
from layerpeel.reports.candidates import VARIANTS_TITLE
from layerpeel.reports.finding import Severity
from layerpeel.reports.report import Report
from tests.browser import inspect_page
from tests.reports.networks import balanced_network, predicted_network

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$x^2$ & ]]>"]


@pytest.fixture(scope="module")
def collapsed() -> Report:
    names = [*HOSTILE, *(f"class {k}" for k in range(7))]
    return Report.of(
        predicted_network([90] * 5 + [3] * 5, (1.2, 2.0), noise=0.2, class_names=names)
    )


@pytest.fixture(scope="module")
def healthy() -> Report:
    return Report.of(balanced_network([20] * 4))


def test_the_worst_finding_comes_first_and_gives_the_verdict(collapsed):
    ranks = [finding.severity.rank for finding in collapsed.findings]
    assert ranks == sorted(ranks, reverse=True)
    assert collapsed.worst is Severity.PROBLEM
    assert collapsed.verdict.startswith(collapsed.findings[0].title)
    assert f"{len(collapsed.findings) - 1} more finding" in collapsed.verdict


def test_a_healthy_network_has_no_findings(healthy):
    assert healthy.findings == ()
    assert healthy.worst is None
    assert "Nothing to report" in healthy.verdict
    assert healthy.advice is None


def test_text_html_and_json_say_the_same(collapsed):
    text = " ".join(collapsed.to_text(200).split())
    content = collapsed.to_dict()
    assert json.loads(collapsed.to_json()) == content
    said = [
        finding for section in content["sections"] for finding in section["findings"]
    ]
    assert [finding["code"] for finding in said] == [f.code for f in collapsed.findings]
    html = collapsed.to_html()
    for finding in collapsed.findings:
        assert finding.code in html
        assert finding.code in text
        assert finding.title in text
    for outcome in collapsed.outcomes:
        assert outcome.code in text
        assert outcome.code in html


def test_json_holds_the_numbers_behind_the_pictures(collapsed):
    content = collapsed.to_dict()
    assert content["measurement"]["class_counts"] == [90] * 5 + [3] * 5
    measured = collapsed.measurement.geometry().classifier_cosines[0].tolist()
    said = content["geometry"]["classifier_cosines"][0]
    assert said == [None if math.isnan(cosine) else cosine for cosine in measured]
    predicted = collapsed.to_dict()["predictions"]
    assert [item["convention"] for item in predicted] == [
        item.convention for item in collapsed.predictions.items
    ]
    assert predicted[0]["log_threshold"] == pytest.approx(
        collapsed.predictions.default.log_threshold
    )


def variants_table(report):
    sections = {section.title: section for section in report.page().sections}
    tables = sections["Prediction against measurement"].tables
    return next((table for table in tables if table.title == VARIANTS_TITLE), None)


def test_the_variants_stand_beside_the_prediction(collapsed):
    table = variants_table(collapsed)
    assert len(table.rows) == 1 + len(collapsed.candidates.items) == 10
    assert collapsed.to_dict()["candidates"] == collapsed.candidates.to_dict()
    nearest = collapsed.candidates.nearest().name
    assert table.rows[1][0] == nearest
    assert f"nearest is {nearest}" in " ".join(collapsed.to_text(200).split())


@pytest.mark.parametrize("counts", [[20] * 4, [90, 3]], ids=["balanced", "two classes"])
def test_variants_that_agree_are_not_shown(counts):
    report = Report.of(balanced_network(counts))
    assert report.candidates is None
    assert variants_table(report) is None
    assert report.to_dict()["candidates"] is None
    # A comparison sets tables side by side: there is one all the same.
    table = next(table for table in report.tables if table.title == VARIANTS_TITLE)
    assert "in every variant" in table.note


def test_a_long_tail_is_reported_by_counts_rather_than_by_a_ratio():
    report = Report.of(predicted_network([90, 30, 9, 5, 3], (1.0, 1.0), noise=0.1))
    table = report.tables[2]
    assert table.columns[3:5] == ("collapse at", "classes below")
    for row, item in zip(table.rows, report.predictions.items, strict=True):
        assert row[3:5] == (item.threshold_count, len(item.below_threshold))
    assert "equal only where the counts are" in table.note
    assert "own count" in table.note
    assert report.candidates is not None
    content = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert content["rates"] == list(report.advice.rates)
    assert content["predictions"][0]["below_threshold"] == list(
        report.predictions.default.below_threshold
    )
    assert report.to_html()


def test_class_names_are_escaped_everywhere(collapsed):
    html = collapsed.to_html()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in collapsed.to_json()
    assert (
        json.loads(collapsed.to_json())["measurement"]["class_names"][0] == HOSTILE[0]
    )


def test_the_same_network_gives_the_same_bytes(collapsed):
    again = Report.of(collapsed.measurement)
    assert again.to_html() == collapsed.to_html()
    assert again.to_json() == collapsed.to_json()


def test_a_notebook_shows_the_report_without_leaking_styles(collapsed):
    fragment = collapsed._repr_html_()
    assert "<html" not in fragment
    assert collapsed.findings[0].code in fragment


def test_save_writes_html_and_json_and_nothing_else(collapsed, tmp_path):
    html = collapsed.save(tmp_path / "report.html")
    assert html.read_text(encoding="utf-8") == collapsed.to_html()
    assert json.loads(collapsed.save(tmp_path / "report.json").read_text())
    with pytest.raises(ValueError, match=r"\.html or \.json; got .*report\.pdf"):
        collapsed.save(tmp_path / "report.pdf")
    with pytest.raises(OSError, match="missing"):
        collapsed.save(tmp_path / "missing" / "report.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_every_table_goes_into_a_frame(collapsed):
    frame = collapsed.to_frame()
    assert len(frame) == 10
    assert set(frame["samples"]) == {90, 3}
    assert frame["samples"].is_monotonic_increasing


def test_pictures_are_drawn_by_name(collapsed):
    for picture in collapsed.pictures:
        figure, axes = collapsed.plot(picture.name)
        assert isinstance(figure, Figure)
        assert axes == figure.axes
    with pytest.raises(ValueError, match="'cosines'"):
        collapsed.plot("cosine")


def test_the_advice_stands_in_a_section_of_its_own(collapsed, healthy):
    titles = [section.title for section in collapsed.page().sections]
    assert "How much to oversample" in titles
    assert "How much to oversample" not in [s.title for s in healthy.page().sections]


def test_absent_classes_and_undefined_numbers_are_shown_as_such():
    with pytest.warns(UndefinedWarning):
        measurement = balanced_network([20, 20, 20, 0])
    report = Report.of(measurement)
    assert "LP004" in [finding.code for finding in report.findings]
    assert "undefined" in report.to_text()
    assert "NaN" not in report.to_json()
    assert not math.isnan(report.measurement.nc1())
    assert report.to_html()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_opens_in_a_browser(collapsed, tmp_path, width, scheme):
    inspect_page(collapsed.save(tmp_path / "report.html"), width, scheme)


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
@pytest.mark.parametrize("what", ["head", "features"])
def test_a_network_of_zeros_is_diagnosed(what):
    labels = torch.arange(3).repeat(5)
    weight, features = torch.ones(3, 8), torch.ones(15, 8)
    features[:, 0], weight[:, 0] = labels, torch.arange(3)
    zeros = {"head": (features, 0 * weight), "features": (0 * features, weight)}
    features, weight = zeros[what]
    report = Report.of(measure_features(features, labels, weight=weight))
    assert report.worst is Severity.PROBLEM
    assert report.findings[0].code == "LP010"
    assert "positive and finite" in report.predictions.reason
    assert json.loads(report.to_json(), parse_constant=pytest.fail)
    assert report.to_html()


def test_reports_of_many_classes_stay_small():
    report = Report.of(
        balanced_network([6] * 150 + [2] * 150, noise=0.01, minority=[*range(150, 300)])
    )
    assert len(report.to_json()) < 1_000_000
    assert len(report.to_frame()) == 300


def test_text_says_the_same_when_asked_twice():
    with pytest.warns(UndefinedWarning):
        report = Report.of(balanced_network([20, 20, 20, 0]))
    assert report.to_text() == report.to_text()


def test_results_can_be_pickled_and_copied(collapsed):
    again = pickle.loads(pickle.dumps(collapsed))  # noqa: S301  # our own bytes
    assert again.to_json() == copy.deepcopy(collapsed).to_json() == collapsed.to_json()


def test_a_killed_save_leaves_the_old_report(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    script = textwrap.dedent(
        """
        import os, signal, sys
        import layerpeel._files as files
        # Killed when the content is on disk and the name has not changed hands.
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        from layerpeel.reports.report import Report
        from tests.reports.networks import balanced_network
        Report.of(balanced_network([9] * 3)).save(sys.argv[1])
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
