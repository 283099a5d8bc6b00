"""Findings, tables and pictures: where prediction and measurement meet."""

from layerpeel.reports.advice import Advice
from layerpeel.reports.candidates import Candidate, Candidates, candidates
from layerpeel.reports.clone_report import CloneReport
from layerpeel.reports.compare import Comparison, compare
from layerpeel.reports.diagnose import diagnose, diagnose_features
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from layerpeel.reports.forecasts import Forecast, forecast
from layerpeel.reports.prediction import Prediction, Predictions, predict
from layerpeel.reports.report import Report

__all__ = [
    # entry points
    "candidates",
    "compare",
    "diagnose",
    "diagnose_features",
    "forecast",
    # results
    "Candidates",
    "CloneReport",
    "Comparison",
    "Forecast",
    "Report",
    # their parts
    "Advice",
    "Candidate",
    "Finding",
    "NotApplicable",
    "Passed",
    "Prediction",
    "Predictions",
    "Severity",
    "predict",
]
