import json

import pytest

from layerpeel.measurement.files import save_measurement
from layerpeel.reports import compare
from layerpeel.reports.report import Report
from tests.measurement.files.measurements import held_out, measured


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "plain.safetensors", tmp_path / "tuned.safetensors"
    for path, count in zip(paths, (60, 120), strict=True):
        save_measurement(measured(slice(count), **held_out()), path)
    return paths


@pytest.fixture
def comparison():
    reports = [Report.of(measured(slice(n), **held_out())) for n in (60, 120)]
    return lambda *names: compare(*reports, names=names)


def test_json_is_the_comparison_of_the_api(run, files, comparison):
    expected = comparison("plain", "tuned").to_json()
    assert run("compare", *files, "--json") == (0, expected + "\n", "")


def test_names_are_typed_or_those_of_the_files(run, files, comparison, tmp_path):
    expected = comparison("a", "b c").to_json()
    assert run("compare", *files, "--names", "a, b c", "--json")[1] == expected + "\n"
    (tmp_path / "later").mkdir()
    same = tmp_path / "later" / "plain.safetensors"
    same.write_bytes(files[1].read_bytes())
    expected = comparison("before", "after").to_json()
    assert run("compare", files[0], same, "--json")[1] == expected + "\n"


def test_report_is_written_and_text_printed(run, files, tmp_path):
    out = tmp_path / "both.json"
    code, printed, err = run("compare", *files, "--out", out)
    assert (code, err) == (0, f"Wrote {out}\n")
    assert "Side by side" in printed
    assert json.loads(out.read_text("utf-8"))["first"]


def test_fail_on_follows_the_second(run, files, comparison):
    worst = comparison("a", "b").worst
    assert worst is not None
    assert run("compare", *files, "--quiet", "--fail-on", worst.value) == (1, "", "")


REFUSED = [
    (["--names", "a"], "--names must be two"),
    (["--names", "a,a"], "must differ"),
    (["--out", "both.pdf"], "--out must end in"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_usage_is_refused(run, files, options, message):
    code, out, err = run("compare", *files, *options)
    assert (code, out) == (2, "")
    assert message in err


def test_reports_hold_no_statistics(run, files, tmp_path):
    code, _, err = run("compare", files[0], tmp_path / "report.json")
    assert code == 2
    assert "is a report, from which statistics cannot be read back" in err
    assert run("compare", files[0])[0] == 2


def test_other_classes_are_refused(run, files, tmp_path):
    other = tmp_path / "other.safetensors"
    save_measurement(measured(class_names=list("abcd")), other)
    code, _, err = run("compare", files[0], other)
    assert code == 2
    assert "must name the classes alike" in err
