"""How the command line gives results: files, JSON or text, and exit codes."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from layerpeel._json import json_text
from layerpeel.measurement import Measurement
from layerpeel.measurement.files import save_measurement
from layerpeel.reports import tables
from layerpeel.reports.causes import with_causes
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.finding import Severity


def deliver(
    report: AbstractDocument, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Write a report to a file, if one is named, and print it."""
    if out is not None:
        report.save(out)
        wrote(out, quiet)
    if as_json:
        typer.echo(report.to_json())
    elif not quiet:
        typer.echo(report.to_text(shutil.get_terminal_size((100, 24)).columns))


def deliver_measurement(
    measurement: Measurement, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Write a measurement to a file, if one is named, and print what it says."""
    if out is not None:
        save_measurement(measurement, out)
        wrote(out, quiet)
    if as_json:
        typer.echo(json_text(measurement.to_dict()))
    elif not quiet:
        for build in (tables.network_table, tables.collapse_table):
            Console().print(with_causes(partial(build, measurement)))
        if measurement.profile is not None:
            Console().print(tables.layers_table(measurement.profile))


def exit_for(worst: Severity | None, fail_on: Severity | None) -> None:
    """Exit with 1 for a finding at least as severe as the caller wants to hear of.

    Raises:
        typer.Exit: If there is one.
    """
    if fail_on and worst and worst >= fail_on:
        raise typer.Exit(1)


def wrote(path: Path, quiet: bool) -> None:
    """Say on stderr that a file was written."""
    if not quiet:
        typer.echo(f"Wrote {path}", err=True)


def progress(quiet: bool) -> bool | None:
    """Return whether to show a bar: never, or with ``None`` if stderr is a terminal."""
    return False if quiet else None
