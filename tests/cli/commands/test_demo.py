import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerpeel.reports.table import Table
from layerpeel.studies import minority_collapse


@pytest.fixture
def study(monkeypatch):
    """A study that only takes down what it was asked."""
    calls = []

    def fake(out, **options):
        calls.append({"out": out, **options})
        return SimpleNamespace(
            report_path=out / "report.html",
            table=Table("Side by side", ("metric", "value"), [("recall", 0.5)]),
        )

    monkeypatch.setattr(minority_collapse, "run", fake)
    return calls


def test_demo_makes_its_directory_and_says_where_the_report_is(
    run, study, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("demo")
    assert (code, err) == (0, "")
    assert "Side by side" in out
    assert out.endswith("Report: layerpeel-demo/report.html\n")
    assert Path("layerpeel-demo").is_dir()
    assert run("demo", "--out", "a/b", "--seed", 3, "--quiet") == (0, "", "")
    assert [call.pop("progress") for call in study] == [None, False]
    assert study == [
        {"out": Path("layerpeel-demo"), "seed": 0},
        {"out": Path("a/b"), "seed": 3},
    ]


def test_demo_is_refused_before_any_work(run, study, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for out in ["file", "file/below"]:
        code, printed, err = run("demo", "--out", tmp_path / out)
        assert (code, printed) == (2, "")
        assert "cannot be made" in err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, err = run("demo", "--out", tmp_path / "new")
    assert code == 2
    assert "pip install 'layerpeel[report]'" in err
    assert not (tmp_path / "new").exists()
    assert study == []


def test_demo_runs_from_data_to_report(run, tmp_path):
    code, out, err = run("demo", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert "minority recall" in out
    report = tmp_path / "demo" / "report.html"
    assert out.endswith(f"Report: {report}\n")
    assert (
        report.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    )
