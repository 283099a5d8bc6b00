"""What the README shows, runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert str(names["report"].title) in capsys.readouterr().out


def test_the_threshold_of_the_readme_is_what_the_package_computes():
    import layerpeel as lp

    readme = (ROOT / "README.md").read_text()
    said = re.search(r"collapse_threshold\(.*\)\s+# ([\d.]+)", readme)
    threshold = lp.collapse_threshold(majority=5, minority=5, energy=(1.0, 5.0))
    assert said is not None
    assert f"{threshold:.2f}" == said[1]


def test_every_make_target_and_file_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", readme))
    defined = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets <= defined
    links = [
        link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link
    ]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
