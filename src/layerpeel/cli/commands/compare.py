"""Comparing two networks by their statistics."""

from __future__ import annotations

from pathlib import Path

from layerpeel._checks import FileError
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.inputs import parts
from layerpeel.cli.output import deliver, exit_for
from layerpeel.cli.usage import check_report
from layerpeel.measurement.files import load_measurement
from layerpeel.reports import compare as compare_reports
from layerpeel.reports.report import Report


def compare(
    first: opt.FirstStats,
    second: opt.SecondStats,
    names: opt.Names = None,
    out: opt.Out = None,
    as_json: opt.AsJson = False,
    fail_on: opt.FailOn = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Compare the last layers of two networks, measured before."""
    with told(debug):
        check_report(out)
        called = _names(first, second, names)
        reports = [_report(path) for path in (first, second)]
        comparison = compare_reports(*reports, names=called)
        deliver(comparison, out, as_json, quiet)
    exit_for(comparison.worst, fail_on)


def _report(path: Path) -> Report:
    if path.suffix.lower() in (".json", ".html"):
        raise FileError(
            f"`{path}` is a report, from which statistics cannot be read back. Give the "
            "file that `layerpeel measure -o` wrote."
        )
    return Report.of(load_measurement(path))


def _names(first: Path, second: Path, typed: str | None) -> tuple[str, str]:
    """Return what was typed, or the names of the files where they differ."""
    if typed is None:
        same = first.stem == second.stem
        return ("before", "after") if same else (first.stem, second.stem)
    names = parts(typed) or []
    if len(names) != 2:
        raise ValueError(f"--names must be two, such as before,after; got {typed!r}.")
    return names[0], names[1]
