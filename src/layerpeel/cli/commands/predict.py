"""Predicting the last layer before any training."""

from __future__ import annotations

from layerpeel._figures import save
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.output import deliver, wrote
from layerpeel.cli.problems import typed_problem
from layerpeel.cli.usage import check_picture, check_report
from layerpeel.reports.forecasts import forecast
from layerpeel.reports.forecasts.picture import phase_figure


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
        check_report(out)
        check_picture(phase_diagram)
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
            wrote(phase_diagram, quiet)
        said = forecast(problem, problem.solve(method=method))
        deliver(said, out, as_json, quiet)
