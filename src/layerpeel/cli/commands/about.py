"""What is installed, and what the codes of findings mean."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.environment import Environment
from layerpeel.reports import checks
from layerpeel.reports.table import Table


def doctor(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Show versions, optional parts, devices, threads and linear algebra."""
    with told(debug):
        environment = Environment.here()
        if as_json:
            typer.echo(json.dumps(environment.to_dict(), indent=2))
        else:
            rows = environment.rows()
            Console().print(Table("layerpeel doctor", ("item", "found"), rows))


def explain(code: opt.Code, debug: opt.Debug = False) -> None:
    """Explain the code of a finding."""
    with told(debug):
        typer.echo(checks.explain(code))
