"""The tables of a forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layerpeel.program import CrossEntropy, PeeledProblem, Solution
from layerpeel.reports.forecasts.groups import GroupForecast
from layerpeel.reports.forecasts.thresholds import Thresholds
from layerpeel.reports.table import Cell, Table


def problem_table(problem: PeeledProblem) -> Table:
    """Return what was solved."""
    counts = problem.class_counts
    rows: tuple[tuple[Cell, ...], ...] = (
        ("classes", problem.num_classes),
        ("samples", math.fsum(counts)),
        ("largest over smallest count", max(counts) / min(counts)),
        ("loss", _loss_text(problem)),
        ("held small by", _held_text(problem)),
        ("bias", _bias_text(problem)),
        ("features", _features_text(problem)),
    )
    return Table("The problem", ("", "value"), rows)


def solution_table(solution: Solution, groups: Sequence[GroupForecast]) -> Table:
    """Return what was found, and what is proved about it."""
    certificate = solution.certificate
    rows: list[tuple[Cell, ...]] = [
        ("status", f"{solution.status.name}: {solution.status.value}"),
        ("objective", certificate.objective),
        ("lower bound on the optimum", certificate.lower_bound),
        ("gap between them, over the objective", certificate.gap),
        ("rank of the logits", solution.factors.classifiers().shape[1]),
        ("classes collapse up to this count", _merging_text(groups)),
    ]
    return Table("The solution", ("", "value"), rows)


def _merging_text(groups: Sequence[GroupForecast]) -> str:
    known = [group.merges_at for group in groups if group.merges_at is not None]
    if not known:
        return "no threshold known"
    low, high = min(known), max(known)
    same = high - low <= 1e-9 * high
    return f"{high:.4g}" if same else f"{low:.4g} to {high:.4g}, by class"


def group_table(groups: Sequence[GroupForecast]) -> Table:
    """Return one row for each group of classes, the most frequent first."""
    columns = (
        "samples",
        "classes",
        "state",
        "norm w",
        "cos w",
        "norm h",
        "cos h",
        "to first",
    )
    rows = [
        (
            group.counts,
            len(group.classes),
            _state_text(group),
            group.classifier_norm,
            _alone(group, group.classifier_cosine),
            group.feature_norm,
            _alone(group, group.feature_cosine),
            None if index == 0 else group.cosine_to_first,
        )
        for index, group in enumerate(groups)
    ]
    alike = all(group.fewest == group.most for group in groups)
    title = "Groups of classes that are alike" if alike else "The long tail in parts"
    return Table(title, columns, rows, note=_GROUP_NOTE)


_GROUP_NOTE = (
    "w: classifiers, h: class means; means over the group. To first: the cosine to the "
    "classifiers of the first row."
)


def threshold_table(thresholds: Thresholds) -> Table:
    """Return where the imbalance stands between the two thresholds."""
    vanishing = thresholds.vanishing
    what = "merged" if vanishing is not None else "without features"
    rows: list[tuple[Cell, ...]] = [
        ("R, the imbalance", thresholds.ratio, thresholds.log_ratio),
        (f"R0, minority {what}", thresholds.collapse, thresholds.log_collapse),
    ]
    if vanishing is not None:
        rows.append(("R1, minority zero", vanishing, math.log(vanishing)))
    return Table(
        "The thresholds of minority collapse",
        ("", "ratio", "log"),
        rows,
        note=(
            "Both are exponential in the energies, so compare logarithms: well below R0 "
            "the minority classifiers have already drawn together."
        ),
    )


def _alone(group: GroupForecast, cosine: float) -> float | None:
    """Return a cosine within a group; a class by itself has none."""
    return cosine if len(group.classes) > 1 else None


def _state_text(group: GroupForecast) -> str:
    """Return the state, and of how many classes where it is not that of all."""
    size = len(group.classes)
    if 0 < group.collapsed < size:
        return f"{group.collapsed} of {size} collapsed"
    if 0 < group.drawn_together < size and not group.collapsed:
        return f"{group.drawn_together} of {size} {group.state.value}"
    return group.state.value


def _loss_text(problem: PeeledProblem) -> str:
    loss = problem.loss
    weighted = ", class weights" if problem.class_weights else ""
    if not isinstance(loss, CrossEntropy):
        return f"squared error{weighted}"
    smoothed = f", label smoothing {loss.smoothing:g}" if loss.smoothing else ""
    names = [n for n in ("scale", "offset", "margin") if getattr(loss, n) is not None]
    per_class = f", {', '.join(names)} per class" if names else ""
    return f"cross-entropy{smoothed}{per_class}{weighted}"


def _held_text(problem: PeeledProblem) -> str:
    if problem.energy is not None:
        energy = problem.energy
        return (
            f"energies E_W = {energy.classifiers:g}, E_H = {energy.features:g}, features "
            f"per {energy.per}"
        )
    decay = problem.weight_decay
    assert decay is not None  # one of the two is there
    layers = ", ".join(f"{value:g}" for value in decay.layers)
    return f"decay {layers} on layers, {decay.features:g} on features per {decay.per}"


def _bias_text(problem: PeeledProblem) -> str:
    if problem.bias is None:
        return "none"
    return "free" if problem.bias == "free" else f"ridge {problem.bias:g}"


def _features_text(problem: PeeledProblem) -> str:
    sign = "nonnegative" if problem.features == "nonnegative" else "free"
    return sign if problem.width is None else f"{sign}, width {problem.width}"
