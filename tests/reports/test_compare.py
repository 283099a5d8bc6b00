import pytest

from layerpeel._checks import ShapeError
from layerpeel.reports.compare import compare
from layerpeel.reports.report import Report
from tests.browser import inspect_page
from tests.reports.networks import balanced_network, predicted_network


@pytest.fixture(scope="module")
def reports():
    minority = [3, 4, 5]
    before = predicted_network([90] * 3 + [3] * 3, (1.5, 2.0), minority=minority)
    after = balanced_network([90] * 6, minority=minority)
    return Report.of(before), Report.of(after)


def test_resolved_and_new_findings_are_told_apart(reports):
    first, second = reports
    comparison = compare(first, second)
    before = {finding.code for finding in first.findings}
    after = {finding.code for finding in second.findings}
    assert comparison.resolved == tuple(sorted(before - after))
    assert comparison.introduced == tuple(sorted(after - before))
    assert compare(second, first).introduced == comparison.resolved
    assert "LP001" in comparison.resolved


def test_the_table_holds_both_numbers_and_their_difference(reports):
    rows = {row[0]: row[1:] for row in compare(*reports).table.rows}
    for a, b, change in rows.values():
        assert change == pytest.approx(b - a, nan_ok=True)
    first, second = (report.measurement for report in reports)
    cosines = [m.classifier_block.cosine for m in (first, second)]
    assert rows["minority cosine"][:2] == pytest.approx(cosines, rel=1e-12)
    assert rows["E_H"][:2] == (first.energy()[1], second.energy()[1])


def test_the_verdict_names_the_change_of_the_minority_cosine(reports):
    comparison = compare(*reports)
    first, second = (report.measurement.classifier_block.cosine for report in reports)
    assert f"from {first:.3f} to {second:.3f}" in comparison.verdict


def test_the_comparison_holds_both_reports(reports):
    comparison = compare(*reports, names=("raw", "cured"), story="What was done.")
    content = comparison.to_dict()
    assert content["first"]["findings"] == [f.code for f in reports[0].findings]
    assert content["second"]["measurement"] == reports[1].to_dict()["measurement"]
    assert "What was done." in comparison.to_text()
    assert "cured" in comparison.to_html()


def test_a_cured_network_is_asked_about_the_minority_it_had():
    minority = [3, 4, 5]
    before = Report.of(predicted_network([90] * 3 + [3] * 3, (1.5, 2.0)))
    after = Report.of(balanced_network([90] * 6))
    assert after.measurement.groups.balanced
    comparison = compare(before, after)
    rows = {row[0]: row[1:] for row in comparison.table.rows}
    expected = after.measurement.geometry().block_cosine(minority)
    assert rows["minority cosine"][1] == expected == pytest.approx(-0.2)
    assert "Minority cosine went from" in comparison.verdict
    assert comparison.to_html()


def test_what_remains_is_said(reports):
    comparison = compare(reports[0], reports[0])
    codes = ", ".join(sorted(finding.code for finding in reports[0].findings))
    assert f"resolved: none; remaining: {codes}; new: none" in comparison.verdict


def test_comparisons_that_would_mislead_are_refused(reports):
    with pytest.raises(ValueError, match="differ"):
        compare(*reports, names=("same", "same"))
    other = balanced_network([90] * 6, class_names=list("abcdef"))
    with pytest.raises(ValueError, match="'0' and 'a'"):
        compare(reports[0], Report.of(other))


def test_different_numbers_of_classes_are_refused(reports):
    with pytest.raises(ShapeError, match="6 and 4"):
        compare(reports[0], Report.of(balanced_network([9] * 4)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_opens_in_a_browser(reports, tmp_path, width, scheme):
    path = compare(*reports).save(tmp_path / "comparison.html")
    inspect_page(path, width, scheme)


def test_long_tails_are_compared_by_the_count_at_which_classes_collapse():
    first = Report.of(predicted_network([90, 30, 12, 6], (1.5, 2.0), minority=[2, 3]))
    rows = {row[0]: row[1:] for row in compare(first, first).table.rows}
    limit = first.predictions.default.threshold_count
    assert rows["collapse at (samples)"] == (limit, limit, 0.0)
    assert "log R0" not in rows
