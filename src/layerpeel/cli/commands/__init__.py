"""The commands of ``layerpeel``. Each parses, calls the public API, and prints.

Results go to stdout, progress and messages to stderr. Exit 0: all is well; 1: findings
at or above ``--fail-on``; 2: bad usage, bad input, or an error.
"""

from __future__ import annotations

import typer

import layerpeel
from layerpeel.cli import options as opt
from layerpeel.cli.commands.about import doctor, explain
from layerpeel.cli.commands.clones import clones
from layerpeel.cli.commands.compare import compare
from layerpeel.cli.commands.demo import demo
from layerpeel.cli.commands.diagnose import diagnose
from layerpeel.cli.commands.measure import measure
from layerpeel.cli.commands.merge import merge
from layerpeel.cli.commands.predict import predict

app = typer.Typer(
    help="Peel the last, exactly solvable problem off a trained classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: opt.Version = False) -> None:
    if version:
        typer.echo(f"layerpeel {layerpeel.__version__}")
        raise typer.Exit


for _command in (
    diagnose,
    clones,
    measure,
    merge,
    compare,
    predict,
    demo,
    doctor,
    explain,
):
    app.command()(_command)
