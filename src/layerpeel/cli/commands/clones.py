"""Looking for the clones that a layer consists of, and keeping fewer neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import layerpeel
from layerpeel._checks import one_of
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.inputs import (
    check_device,
    chunk_widths,
    from_features,
    from_model,
    seeded,
)
from layerpeel.cli.kept_layer import KeptLayer
from layerpeel.cli.kept_report import KeptReport
from layerpeel.cli.narrowing import Narrowing
from layerpeel.cli.output import deliver, exit_for, progress, wrote
from layerpeel.cli.usage import check_kept, check_report, check_source
from layerpeel.measurement.clones.reconstruction.reconstruction import SCOPES
from layerpeel.measurement.layers.observer import MAPS
from layerpeel.reports.clone_report import CloneReport
from layerpeel.reports.document import AbstractDocument


def clones(
    model: opt.Model = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
    eval_data: opt.EvalData = None,
    features: opt.Features = None,
    layer: opt.Layer = None,
    widths: opt.Widths = "dyadic",
    repeats: opt.Repeats = 40,
    scope: opt.Scope = None,
    paper: opt.Paper = False,
    no_untrained: opt.NoUntrained = False,
    maps: opt.Maps = None,
    keep: opt.Keep = None,
    tolerance: opt.Tolerance = None,
    select: opt.Select = None,
    kept: opt.KeptOut = None,
    head: opt.Head = None,
    num_classes: opt.NumClasses = None,
    batch_size: opt.BatchSize = 256,
    device: opt.Device = None,
    seed: opt.Seed = 0,
    out: opt.Out = None,
    as_json: opt.AsJson = False,
    fail_on: opt.FailOn = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Tell whether a layer is wide, or several copies of the same thing."""
    of_model = {
        "data": data,
        "weights": weights,
        "eval_data": eval_data,
        "head": head,
        "layer": layer,
        "maps": maps,
        "no_untrained": "" if no_untrained else None,
        "device": device,
    }
    with told(debug), seeded(seed):
        check_source({"MODEL": model, "--features": features}, of_model)
        narrowing = Narrowing.typed(keep, tolerance, select, kept, seed)
        shared: dict[str, Any] = {
            **_chunks(widths, repeats, scope, seed),
            "paper": paper,
            "num_classes": num_classes,
            "progress": progress(quiet),
        }
        chosen = _chosen(layer, maps, untrained=not no_untrained)
        check_report(out)
        check_kept(kept, (model, weights, data, eval_data, features))
        check_device(device)
        if features is not None:
            profile = from_features(layerpeel.clone_profile_features, features, shared)
        else:
            shared |= chosen
            profile = from_model(
                layerpeel.clone_profile, str(model), of_model, batch_size, shared
            )
        reader = None if features is None else "the classifier"
        narrowed = None if narrowing is None else narrowing.of(profile, reader)
        report = CloneReport.of(profile)
        _write(narrowed, kept, quiet)
        deliver(_document(report, narrowed), out, as_json, quiet)
    exit_for(report.worst, fail_on)


def _write(narrowed: KeptLayer | None, path: Path | None, quiet: bool) -> None:
    """Write the neurons kept to a file, if one is named."""
    if narrowed is not None and path is not None:
        narrowed.write(path)
        wrote(path, quiet)


def _document(report: CloneReport, narrowed: KeptLayer | None) -> AbstractDocument:
    return report if narrowed is None else KeptReport(report, narrowed)


def _chunks(widths: str, repeats: int, scope: str | None, seed: int) -> dict[str, Any]:
    """Return what was typed about chunks, as arguments."""
    return {
        "widths": chunk_widths(widths),
        "repeats": repeats,
        "scope": None if scope is None else one_of("--scope", scope, SCOPES),
        "generator": torch.Generator().manual_seed(seed),
    }


def _chosen(layer: str | None, maps: str | None, *, untrained: bool) -> dict[str, Any]:
    """Return what was typed about the layer of a model, as arguments."""
    chosen: dict[str, Any] = {} if layer is None else {"layer": layer}
    if maps is not None:
        chosen["maps"] = one_of("--maps", maps, MAPS)
    return chosen if untrained else {**chosen, "untrained_null": False}
