"""Diagnosing a network, features, or statistics measured before."""

from __future__ import annotations

import layerpeel
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.inputs import (
    check_device,
    class_options,
    from_features,
    from_model,
    seeded,
)
from layerpeel.cli.output import deliver, exit_for, progress
from layerpeel.cli.usage import check_report, check_source
from layerpeel.measurement.files import load_measurement
from layerpeel.reports.report import Report


def diagnose(
    model: opt.Model = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
    eval_data: opt.EvalData = None,
    features: opt.Features = None,
    stats: opt.Stats = None,
    head: opt.Head = None,
    num_classes: opt.NumClasses = None,
    class_names: opt.ClassNames = None,
    minority: opt.Minority = None,
    clones: opt.Clones = False,
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
    with told(debug), seeded(seed):
        check_source(
            {"MODEL": model, "--features": features, "--stats": stats}, of_model
        )
        classes = class_options(num_classes, class_names, minority)
        if stats is not None:
            _check_plain(classes, clones=clones)
        check_report(out)
        check_device(device)
        shared = {**classes, "progress": progress(quiet)}
        if clones:
            shared["clones"] = True
        if stats is not None:
            report = Report.of(load_measurement(stats))
        elif features is not None:
            report = from_features(layerpeel.diagnose_features, features, shared)
        else:
            report = from_model(
                layerpeel.diagnose, str(model), of_model, batch_size, shared
            )
        deliver(report, out, as_json, quiet)
    exit_for(report.worst, fail_on)


def _check_plain(classes: dict[str, object], *, clones: bool) -> None:
    """Check that nothing is asked for that a file of statistics cannot give.

    Raises:
        ValueError: If something is.
    """
    if clones:
        raise ValueError(
            "--stats does not go with --clones: clones are looked for in features, and "
            "the file has none. Give MODEL with --data, or --features, instead."
        )
    typed = [f"--{k.replace('_', '-')}" for k, v in classes.items() if v is not None]
    if typed:
        raise ValueError(
            f"--stats does not go with {', '.join(typed)}: the file says what the "
            "classes are. Leave it out, or measure again with it."
        )
