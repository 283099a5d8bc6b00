"""Findings, tables and pictures: where prediction and measurement meet."""

from layerpeel.reports.advice import Advice
from layerpeel.reports.compare import Comparison, compare
from layerpeel.reports.diagnose import diagnose, diagnose_features
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from layerpeel.reports.prediction import Prediction, Predictions, predict
from layerpeel.reports.report import Report

__all__ = [
    # entry points
    "compare",
    "diagnose",
    "diagnose_features",
    # results
    "Comparison",
    "Report",
    # their parts
    "Advice",
    "Finding",
    "NotApplicable",
    "Passed",
    "Prediction",
    "Predictions",
    "Severity",
    "predict",
]
