"""The commands of ``layerpeel``. Each parses, calls the public API, and prints.

Results go to stdout, progress and messages to stderr. Exit 0: all is well; 1: findings
at or above ``--fail-on``; 2: bad usage, bad input, or an error.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

import layerpeel
from layerpeel._figures import save
from layerpeel._files import check_writable, make_directory
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.environment import Environment, install_line, usable_device
from layerpeel.cli.problems import typed_problem
from layerpeel.cli.sources import load_data, load_features, load_model
from layerpeel.reports import checks
from layerpeel.reports.document import SUFFIXES, AbstractDocument
from layerpeel.reports.forecasts import forecast
from layerpeel.reports.forecasts.picture import phase_figure
from layerpeel.reports.report import Report
from layerpeel.reports.table import Table

PICTURE_SUFFIXES = (".svg", ".png", ".pdf")

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


@app.command()
def diagnose(
    model: opt.Model = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
    eval_data: opt.EvalData = None,
    features: opt.Features = None,
    head: opt.Head = None,
    num_classes: opt.NumClasses = None,
    class_names: opt.ClassNames = None,
    minority: opt.Minority = None,
    batch_size: opt.BatchSize = 256,
    device: opt.Device = None,
    seed: opt.Seed = 0,
    out: opt.Out = None,
    as_json: opt.AsJson = False,
    fail_on: opt.FailOn = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Diagnose the last layer of a trained classifier."""
    of_model = {
        "data": data,
        "weights": weights,
        "eval_data": eval_data,
        "head": head,
        "device": device,
    }
    with told(debug), _seeded(seed):
        _check_usage(model, features, of_model)
        _check_out(out)
        if device is not None:
            usable_device(device)
        shared = {
            "num_classes": num_classes,
            "class_names": _parts(class_names),
            "minority": _integers("minority", minority),
        }
        if features is not None:
            report = _diagnose_features(features, shared, quiet)
        else:
            report = _diagnose_model(str(model), of_model, batch_size, shared, quiet)
        _deliver(report, out, as_json, quiet)
    if fail_on and report.worst and report.worst >= fail_on:
        raise typer.Exit(1)


@app.command()
def predict(
    counts: opt.Counts,
    energy: opt.Energies = None,
    weight_decay: opt.WeightDecay = None,
    per: opt.Per = None,
    loss: opt.Loss = "cross_entropy",
    smoothing: opt.Smoothing = 0.0,
    bias: opt.Bias = "none",
    features: opt.Sign = "free",
    width: opt.Width = None,
    method: opt.Method = "auto",
    phase_diagram: opt.PhaseDiagram = None,
    out: opt.Out = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Predict the last layer from class counts, before any training."""
    with told(debug):
        _check_out(out)
        _check_picture(phase_diagram)
        problem = typed_problem(
            counts,
            energy=energy,
            weight_decay=weight_decay,
            per=per,
            loss=loss,
            smoothing=smoothing,
            bias=bias,
            features=features,
            width=width,
        )
        if phase_diagram is not None:
            save(phase_figure(problem), phase_diagram)
            _wrote(phase_diagram, quiet)
        said = forecast(problem, problem.solve(method=method))
        _deliver(said, out, as_json, quiet)


@app.command()
def demo(
    out: opt.Directory = Path("layerpeel-demo"),
    seed: opt.Seed = 0,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Train on imbalanced digits, diagnose, oversample and compare."""
    with told(debug):
        from layerpeel.studies import minority_collapse

        _check_installed("jinja2", "report")
        directory = make_directory(out)
        result = minority_collapse.run(directory, seed=seed, progress=_progress(quiet))
        if not quiet:
            Console().print(result.table)
            typer.echo(f"Report: {result.report_path}")


@app.command()
def doctor(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Show versions, optional parts, devices, threads and linear algebra."""
    with told(debug):
        environment = Environment.here()
        if as_json:
            typer.echo(json.dumps(environment.to_dict(), indent=2))
        else:
            rows = environment.rows()
            Console().print(Table("layerpeel doctor", ("item", "found"), rows))


@app.command()
def explain(code: opt.Code, debug: opt.Debug = False) -> None:
    """Explain the code of a finding."""
    with told(debug):
        typer.echo(checks.explain(code))


# Checks before any work


def _check_usage(
    model: str | None, features: str | None, of_model: dict[str, str | None]
) -> None:
    if (model is None) == (features is None):
        given = "neither" if model is None else "both"
        raise ValueError(f"Give either MODEL with --data, or --features; got {given}.")
    given_options = [name for name, value in of_model.items() if value is not None]
    if features is not None and given_options:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given_options)
        raise ValueError(
            f"--features needs no model and does not go with {options}. Leave one out."
        )
    if model is not None and of_model["data"] is None:
        raise ValueError("MODEL needs --data: the data that it was trained on.")


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}; got '{out}'.")
    if out.suffix == ".html":
        _check_installed("jinja2", "report")
    check_writable(out)


def _check_picture(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(
            f"--phase-diagram must end in {', '.join(PICTURE_SUFFIXES)}; got '{path}'."
        )
    check_writable(path)


def _check_installed(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"A report in HTML needs `{module}`, which is not installed. "
            f"Run `{install_line(extra)}`."
        )


def _parts(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _integers(name: str, text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--{name} must be integers between commas, such as 5,6,7; got {text!r}."
        ) from error


# The work


def _diagnose_model(
    model: str,
    options: dict[str, str | None],
    batch_size: int,
    shared: dict[str, Any],
    quiet: bool,
) -> Report:
    source = load_model(model, options["weights"])
    if options["device"] is not None:
        source.model.to(options["device"])
    loaders = {
        name: load_data(reference, batch_size, source.dtype)
        for name in ("data", "eval_data")
        if (reference := options[name]) is not None
    }
    return layerpeel.diagnose(
        source.model,
        loaders["data"],
        eval_loader=loaders.get("eval_data"),
        head=options["head"],
        device=options["device"],
        progress=_progress(quiet),
        **_named(shared, source.class_names),
    )


def _diagnose_features(path: str, shared: dict[str, Any], quiet: bool) -> Report:
    source = load_features(path)
    return layerpeel.diagnose_features(
        source.features,
        source.labels,
        weight=source.weight,
        bias=source.bias,
        eval_features=source.eval_features,
        eval_labels=source.eval_labels,
        progress=_progress(quiet),
        **_named(shared, source.class_names),
    )


def _named(shared: dict[str, Any], names: tuple[str, ...] | None) -> dict[str, Any]:
    """Fill in the class names of the source where none were typed."""
    return shared | {"class_names": shared["class_names"] or names}


def _deliver(
    report: AbstractDocument, out: Path | None, as_json: bool, quiet: bool
) -> None:
    if out is not None:
        report.save(out)
        _wrote(out, quiet)
    if as_json:
        typer.echo(report.to_json())
    elif not quiet:
        typer.echo(report.to_text(shutil.get_terminal_size((100, 24)).columns))


def _wrote(path: Path, quiet: bool) -> None:
    if not quiet:
        typer.echo(f"Wrote {path}", err=True)


def _progress(quiet: bool) -> bool | None:
    """``None`` shows a bar where stderr is a terminal."""
    return False if quiet else None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generator, from which the user's model and loaders may draw."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
