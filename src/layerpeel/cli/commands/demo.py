"""The demonstration: train, diagnose, oversample, compare."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from layerpeel._files import make_directory
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.output import progress
from layerpeel.cli.usage import check_installed


def demo(
    out: opt.Directory = Path("layerpeel-demo"),
    seed: opt.Seed = 0,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Train on imbalanced digits, diagnose, oversample and compare."""
    with told(debug):
        from layerpeel.studies import minority_collapse

        check_installed("jinja2", "report")
        directory = make_directory(out)
        result = minority_collapse.run(directory, seed=seed, progress=progress(quiet))
        if not quiet:
            Console().print(result.table)
            typer.echo(f"Report: {result.report_path}")
