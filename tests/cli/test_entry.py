import os
import subprocess
import sys
from pathlib import Path

import pytest

import layerpeel
from tests.cli.conftest import MODULE


def test_without_typer_the_install_line_is_told(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "typer", None)
    code, out, err = run("--version")
    assert (code, out) == (2, "")
    assert "pip install 'layerpeel[cli]'" in err
    assert len(err.splitlines()) == 1


def test_version(run):
    assert run("--version") == (0, f"layerpeel {layerpeel.__version__}\n", "")


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ["clones", "demo", "diagnose", "doctor", "explain"]:
        assert name in out
        assert run(name, "--help")[0] == 0


@pytest.mark.parametrize(
    "typed", [[], ["diagnos"], ["diagnose", "--colour"], ["explain"], ["-x"]], ids=str
)
def test_bad_usage_exits_with_2_and_says_how(run, typed):
    code, out, err = run(*typed)
    assert code == 2
    assert "Usage: layerpeel" in out + err


def test_command_works_as_a_program_of_its_own(tmp_path):
    (tmp_path / "small_net.py").write_text(MODULE)
    source = Path(layerpeel.__file__).parents[1]
    done = subprocess.run(
        [
            *[sys.executable, "-m", "layerpeel.cli", "diagnose"],
            *["small_net:warns", "--data", "small_net:loader", "--fail-on", "note"],
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Findings" in done.stdout
    # The warning in one line, and no progress: stderr is no terminal.
    assert done.stderr == "Warning: an old format\n"
