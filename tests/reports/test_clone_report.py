import json
import math
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from layerpeel._checks import BatchError
from layerpeel.measurement import measure_features
from layerpeel.reports import CloneReport
from layerpeel.reports.compare import compare
from layerpeel.reports.diagnose import diagnose, diagnose_features
from layerpeel.reports.finding import Finding, Severity
from layerpeel.reports.report import Report
from tests.browser import inspect_page
from tests.reports.clone_profiles import (
    PROFILES,
    independent,
    low_rank,
    noisy_clones,
    normal,
    planted,
    profiled,
)

HOSTILE = "<script>alert(1)</script> [red] $x^2$"


@pytest.fixture(scope="module")
def report():
    return CloneReport.of(planted("correlated"))


def tables(report):
    return {table.title: table for table in report.tables}


@pytest.mark.parametrize(
    ("name", "verdict"),
    {
        "clones": "4 clones: chunks of 16 of 64 neurons pass for the layer.",
        "low rank": "No clones: no chunk passes for the layer of 64 neurons. The critical "
        "width is decided by interpolation and readout; reconstruction is met from 8 "
        "neurons on.",
        "independent": "No clones: no chunk passes for the layer of 32 neurons.",
        "few samples": "Clones cannot be told here: with 20 samples for 32 neurons",
        "one class": "Clones cannot be told here: chunks of every width decide alike",
        "covariance": "Clones cannot be told from low rank here. Chunks of 8 of 64",
    }.items(),
)
def test_the_verdict_says_how_many_or_why_none(name, verdict):
    assert CloneReport.of(planted(name)).verdict.startswith(verdict)


@pytest.mark.parametrize("name", PROFILES)
def test_text_html_and_json_say_the_same(name):
    report = CloneReport.of(planted(name))
    content = json.loads(report.to_json())
    assert content == report.to_dict()
    assert content["findings"] == [finding.code for finding in report.findings]
    text, html = " ".join(report.to_text(200).split()), report.to_html()
    assert report.verdict in text
    for outcome in report.outcomes:
        assert outcome.code in text
        assert outcome.code in html


def test_findings_come_worst_first(report):
    assert report.worst is Severity.WARNING
    assert [finding.code for finding in report.findings] == ["LP033", "LP031"]
    assert all(isinstance(finding, Finding) for finding in report.findings)


def test_the_table_of_widths_has_the_means_of_the_profile(report):
    table, profile = tables(report)["Chunks by width"], report.profile
    frame = table.to_frame()
    assert frame["width"].tolist() == list(profile.widths)
    raw = profile.held_out.raw
    assert frame["raw error"].tolist() == pytest.approx(raw.mean(1).tolist())
    assert frame["± raw error"].tolist()[:-1] == pytest.approx(raw.std(1).tolist()[:-1])
    assert frame["expected"].tolist() == pytest.approx(
        profile.held_out.expected.tolist()
    )
    assert frame["noise floor"].tolist() == pytest.approx(profile.floor.tolist())
    training = profile.fitted.raw.mean(1).tolist()
    assert frame["raw, training"].tolist() == pytest.approx(training)
    assert table.rows[-1][4:6] == (None, None)  # nothing is outside of the layer


def test_critical_widths_and_claims_are_those_of_the_profile(report):
    profile, found = report.profile, tables(report)
    rows = found["Critical width by criterion"].rows
    assert {row[0]: row[2] for row in rows} == {
        name: answer.width for name, answer in profile.critical.items()
    }
    claims = found["What survives its null"].rows
    assert [row[:3] for row in claims] == [
        (claim.name, claim.survives, claim.evidence) for claim in profile.claims
    ]


def test_the_power_law_has_its_intervals(report):
    law = report.profile.power_law()
    rows = tables(report)["Power law of the raw error"].rows
    assert rows[0] == ("exponent b", *vars(law.exponent).values())
    assert report.to_dict()["power_law"]["exponent"]["value"] == law.exponent.value


def test_without_a_power_law_the_report_says_why():
    report = CloneReport.of(planted("one class"))
    assert "Power law of the raw error" not in tables(report)
    assert "the errors do not fall with the width" in report.remarks
    assert report.to_dict()["power_law"] is None
    bare = CloneReport.of(planted("covariance"))
    assert "there are no errors of chunks" in bare.remarks
    assert "A covariance has no samples" in bare.to_text()


def test_many_widths_are_thinned_and_counted():
    profile = profiled(independent(), widths="all", repeats=3)
    table = tables(CloneReport.of(profile))["Chunks by width"]
    assert len(profile.widths) == 32
    assert [row[0] for row in table.rows] == [1, 2, 4, 8, 16, 32]
    assert "6 of 32 widths are shown" in table.note


def test_neurons_to_keep_stand_beside_random_ones(report):
    frame = tables(report)["Neurons that would do"].to_frame()
    rows = report.evidence.narrower
    assert report.evidence.at_critical is None
    assert frame["neurons"].tolist() == [row.width for row in rows]
    assert frame["error after"].tolist() == [row.errors[1] for row in rows]
    assert math.isnan(frame["random: error"].tolist()[-1])  # no others were drawn


def test_the_critical_width_is_among_the_neurons_to_keep():
    report = CloneReport.of(planted("clones"))
    first = tables(report)["Neurons that would do"].rows[0]
    assert first[:2] == (None, 16)
    assert report.to_dict()["at_critical_width"]["width"] == 16


def test_panels_are_drawn_by_name(report):
    for panel in (None, "errors", "reconstruction", "residuals"):
        figure, _ = report.plot(panel)
        assert isinstance(figure, Figure)
    with pytest.raises(ValueError, match="residuals"):
        report.plot("cosines")
    assert "held_out_raw_error" in report.to_frame()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (420, "dark")])
def test_the_page_is_readable_in_a_browser(report, width, scheme, tmp_path):
    page = inspect_page(report.save(tmp_path / "clones.html"), width, scheme)
    assert "Critical width by criterion" in page.text
    assert len(page.pictures) == 1


def test_names_are_escaped():
    profile = replace(planted("in sample"), layer=HOSTILE, cause=(HOSTILE,))
    report = CloneReport.of(profile, title=HOSTILE)
    assert "<script>" not in report.to_html()
    assert report.to_text(200).count(HOSTILE) == 3


@pytest.fixture(scope="module")
def diagnosed():
    features, labels, readout = low_rank()
    return diagnose_features(
        features[:200],
        labels[:200],
        weight=readout,
        eval_features=features[200:],
        eval_labels=labels[200:],
        clones=True,
        progress=False,
    )


def test_a_diagnosis_has_a_section_on_clones(diagnosed):
    sections = {section.title: section for section in diagnosed.page().sections}
    section = sections["Clones of the last layer"]
    assert section.text.startswith(diagnosed.clones.verdict)
    assert [picture.name for picture in section.pictures] == ["clones"]
    assert "LP031" in [finding.code for finding in diagnosed.findings]
    assert "LP031" in diagnosed.to_html()
    ranks = [finding.severity.rank for finding in diagnosed.findings]
    assert ranks == sorted(ranks, reverse=True)
    content = json.loads(diagnosed.to_json())
    assert content["clones"] == diagnosed.clones.to_dict()
    assert content["clones"]["profile"]["held_out"]["count"] == len(low_rank()[0]) - 200
    figure, _ = diagnosed.plot("clones")
    assert isinstance(figure, Figure)


def test_a_diagnosis_without_clones_says_nothing_of_them(diagnosed):
    plain = Report.of(diagnosed.measurement)
    assert plain.clones is None
    assert plain.to_dict()["clones"] is None
    assert not [o for o in plain.outcomes if o.code >= "LP030"]
    assert [t.title for t in plain.tables] == [
        t.title for t in diagnosed.measurement_tables
    ]


def test_reports_with_and_without_clones_are_compared(diagnosed):
    plain = Report.of(diagnosed.measurement)
    titles = [t.title for t in compare(diagnosed, diagnosed).page().sections[-1].tables]
    assert sum("Chunks by width" in title for title in titles) == 2
    titles = [t.title for t in compare(diagnosed, plain).page().sections[-1].tables]
    assert not [title for title in titles if "Chunks by width" in title]


def test_a_network_is_diagnosed_with_its_clones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    inputs = normal(240, 3).float()
    labels = model(inputs).argmax(1)
    train, test = [(inputs[:160], labels[:160])], [(inputs[160:], labels[160:])]
    report = diagnose(model, train, eval_loader=test, clones=True, progress=False)
    assert report.clones.profile.width == 16
    assert report.clones.profile.held_out.count == 80
    assert report.clones.profile.untrained is not None


@pytest.mark.parametrize("name", ["loader", "eval_loader"])
def test_data_that_can_be_read_once_are_refused_before_reading_them(name):
    batch = (normal(8, 3).float(), torch.tensor([0, 1] * 4))
    once = iter([batch])
    loaders = {"loader": [batch], name: once}
    with pytest.raises(BatchError, match=f"`{name}` must be readable more than once"):
        diagnose(nn.Linear(3, 2), **loaders, clones=True)
    assert next(once) is batch


def test_a_profile_can_be_added_to_any_measurement():
    features, labels, readout = noisy_clones()
    measured = measure_features(features, labels, weight=readout, progress=False)
    report = Report.of(measured, "named", planted("clones"))
    assert report.title == "named"
    assert "LP030" in [finding.code for finding in report.findings]
