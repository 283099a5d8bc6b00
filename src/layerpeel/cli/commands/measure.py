"""Measuring a network, or features, and keeping the statistics."""

from __future__ import annotations

from typing import Any

import layerpeel
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.inputs import (
    check_device,
    class_options,
    from_features,
    from_model,
    parts,
    seeded,
)
from layerpeel.cli.output import deliver_measurement, progress
from layerpeel.cli.usage import check_source, check_statistics


def measure(
    model: opt.Model = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
    eval_data: opt.EvalData = None,
    features: opt.Features = None,
    head: opt.Head = None,
    layers: opt.Layers = None,
    num_classes: opt.NumClasses = None,
    class_names: opt.ClassNames = None,
    minority: opt.Minority = None,
    light: opt.Light = False,
    nc4: opt.Nc4 = "second_pass",
    batch_size: opt.BatchSize = 256,
    device: opt.Device = None,
    seed: opt.Seed = 0,
    out: opt.StatsOut = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Measure the last layer of a trained classifier, and keep its statistics."""
    of_model = {
        "data": data,
        "weights": weights,
        "eval_data": eval_data,
        "head": head,
        "layers": layers,
        "device": device,
    }
    with told(debug), seeded(seed):
        check_source({"MODEL": model, "--features": features}, of_model)
        classes = class_options(num_classes, class_names, minority)
        check_statistics(out)
        check_device(device)
        shared: dict[str, Any] = {
            **classes,
            "light": light,
            "nc4": nc4,
            "progress": progress(quiet),
        }
        if features is not None:
            measurement = from_features(layerpeel.measure_features, features, shared)
        else:
            if layers is not None:
                shared["layers"] = "all" if layers == "all" else parts(layers)
            measurement = from_model(
                layerpeel.measure, str(model), of_model, batch_size, shared
            )
        deliver_measurement(measurement, out, as_json, quiet)
