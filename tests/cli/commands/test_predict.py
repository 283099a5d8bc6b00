import json
import shlex
from pathlib import Path

import pytest

from layerpeel import cli
from layerpeel.program import PeeledProblem
from layerpeel.reports.forecasts import forecast

PLAIN = ["--counts", "5000x5,50x5", "--energy", "1,5"]


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Run the command as typed, and return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def typed(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main(["predict", *map(str, arguments)])
        out, err = capfd.readouterr()
        return exit_info.value.code, out, err

    return typed


@pytest.fixture(scope="module")
def said():
    return forecast(PeeledProblem([5000] * 5 + [50] * 5, energy=(1, 5)))


def test_the_output_is_the_forecast_of_the_api(run, said, monkeypatch):
    assert run(*PLAIN, "--json") == (0, said.to_json() + "\n", "")
    monkeypatch.setenv("COLUMNS", "77")
    assert run(*PLAIN) == (0, said.to_text(77) + "\n", "")


def test_a_person_reads_what_happens_and_what_to_do(run):
    code, out, err = run(*PLAIN)
    assert (code, err) == (0, "")
    for words in ("share one classifier", "12.19", "CERTIFIED", "Draw every sample"):
        assert words in out


def test_every_option_reaches_the_problem(run):
    options = ["--bias", "free", "--smoothing", "0.1", "--width", "8"]
    held = ["--weight-decay", "1e-3,2e-3", "--per", "class"]
    code, out, err = run("--counts", "exp:90:10:3", *held, *options, "--json")
    assert (code, err) == (0, "")
    rows = dict(json.loads(out)["sections"][2]["tables"][0]["rows"])
    assert rows["loss"] == "cross-entropy, label smoothing 0.1"
    assert rows["held small by"] == "decay 0.001 on layers, 0.002 on features per class"
    assert (rows["bias"], rows["features"]) == ("free", "free, width 8")
    assert json.loads(out)["class_counts"] == pytest.approx([90, 30, 10])


def test_the_method_reaches_the_solver(run):
    _, out, _ = run(*PLAIN, "--method", "spectral", "--json")
    assert json.loads(out)["objective"] == pytest.approx(0.0913, abs=1e-4)
    code, out, err = run(*PLAIN, "--method", "closed_form")
    assert (code, out) == (2, "")
    assert "does not apply" in err


def test_files_are_written_and_named(run, tmp_path):
    files = ["--phase-diagram", "p.svg", "--out", "f.json"]
    code, out, err = run(*PLAIN, *files, "--quiet")
    assert (code, out, err) == (0, "", "")
    first = (tmp_path / "p.svg").read_bytes()
    assert first.startswith(b"<?xml")
    code, out, err = run(*PLAIN, *files, "--json")
    assert (code, err) == (0, "Wrote p.svg\nWrote f.json\n")
    assert (tmp_path / "p.svg").read_bytes() == first
    assert json.loads((tmp_path / "f.json").read_text("utf-8")) == json.loads(out)


REFUSED = [
    ([], "--counts"),
    (["--counts", "5x"], "is no count"),
    (["--counts", "5x2"], "either --energy or --weight-decay"),
    (["--counts", "5", "--energy", "1,5"], "at least 2 classes"),
    ([*PLAIN, "--loss", "hinge"], "`--loss` must be one of"),
    ([*PLAIN, "--method", "fast"], "`method` must be one of"),
    ([*PLAIN, "--width", "0"], "--width"),
    ([*PLAIN, "--phase-diagram", "p.gif"], "must end in .svg, .png, .pdf"),
    ([*PLAIN, "--phase-diagram", "no/such/p.svg"], "must exist"),
    ([*PLAIN, "--out", "f.txt"], "--out must end in"),
    ([*PLAIN, "--bias", "free", "--phase-diagram", "p.svg"], "no bias"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_bad_usage_is_told_in_one_message(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert "unexpected" not in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def documented():
    """The commands of the guide, without their comments."""
    page = Path(__file__).parents[3] / "docs" / "guide" / "predict.md"
    lines = page.read_text("utf-8").split("\n")
    commands = [line for line in lines if line.startswith("layerpeel predict ")]
    return [shlex.split(command, comments=True)[2:] for command in commands]


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_the_commands_of_the_guide_run(run, tmp_path, arguments):
    code, out, _ = run(*arguments)
    assert code == 0
    assert out
    written = {Path(a).name for a in arguments if a.endswith((".svg", ".html"))}
    assert written == {path.name for path in tmp_path.iterdir()}


def test_the_guide_has_commands():
    assert len(documented()) > 4
