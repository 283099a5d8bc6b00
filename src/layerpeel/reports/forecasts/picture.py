"""The phase diagram of a problem, with the problem marked in it."""

from __future__ import annotations

import math
import warnings

import numpy as np
from matplotlib.figure import Figure

from layerpeel._checks import UndefinedWarning
from layerpeel._figures import colour, style
from layerpeel.geometry import ClassGroups, split_classes
from layerpeel.program import PeeledProblem
from layerpeel.program.counts import count_groups
from layerpeel.program.pairs.phase_diagram import PhaseDiagram, phase_diagram
from layerpeel.reports.forecasts.thresholds import Thresholds, is_layer_peeled
from layerpeel.reports.picture import Picture

_POINTS = 200
_LARGEST_RATIO = 1e4
# Beyond this ratio a diagram takes seconds, which a report does not.
_LARGEST_RATIO_OF_A_PAGE = 1e6
# How far the axes go beyond the problem, as a factor.
_ROOM = 3.0


def phase_figure(problem: PeeledProblem) -> Figure:
    r"""Draw minority cosines over imbalance and energy, and where a problem stands.

    More than two distinct counts are split as by
    :func:`~layerpeel.geometry.split_classes`, and stand at the ratio of the groups'
    mean counts.

    Args:
        problem: A Layer-Peeled Model: plain cross-entropy, energies per class, free
            features, no bias.

    Returns:
        The figure.

    Raises:
        ValueError: If the problem is another one, or has fewer than two minority
            classes.
    """
    energy = _checked(problem)
    groups, ratio = _two_groups(problem.class_counts)
    sizes = len(groups.majority), len(groups.minority)
    with warnings.catch_warnings():  # vanished cells are seen
        warnings.simplefilter("ignore", UndefinedWarning)
        diagram = _around(*sizes, ratio, energy)
    return _marked(diagram, ratio, energy)


def phase_picture(
    problem: PeeledProblem, thresholds: Thresholds | None
) -> Picture | None:
    """Return the diagram for a report, of two groups whose minority has a cosine.

    Args:
        problem: The problem.
        thresholds: Its thresholds, if there are any.

    Returns:
        The picture; ``None`` for problems without a diagram, and for extreme ratios.
    """
    if thresholds is None or thresholds.vanishing is None or thresholds.minority < 2:
        return None
    if problem.class_weights is not None or problem.energy is None:
        return None
    if thresholds.ratio > _LARGEST_RATIO_OF_A_PAGE:
        return None
    stands = (
        f"R = {thresholds.ratio:.4g} at the product {problem.energy.product:.4g} of the "
        f"energies, {_region(thresholds)}"
    )
    return Picture(
        name="phase diagram",
        title="Where the problem stands",
        caption="The mean cosine between minority classifiers for the same numbers of "
        f"classes. The circle is this problem: {stands}.",
        alt="Cosine between minority classifiers over imbalance and the product of the "
        f"energies, with the curves R0 and R1. A circle marks {stands}.",
        draw=lambda: phase_figure(problem),
    )


def _region(thresholds: Thresholds) -> str:
    """Say between which curves a problem stands."""
    assert thresholds.vanishing is not None  # features are free
    if thresholds.log_ratio >= math.log(thresholds.vanishing):
        return "beyond R1, where the minority is zero"
    if thresholds.log_ratio >= thresholds.log_collapse:
        return "beyond R0, where the minority is merged"
    return "before R0, where minority classes merge"


@style()
def _marked(diagram: PhaseDiagram, ratio: float, energy: float) -> Figure:
    fig, ax = diagram.plot()
    ax.plot(
        [ratio],
        [energy],
        marker="o",
        markersize=7,
        markerfacecolor=colour("surface"),
        markeredgecolor=colour("ink"),
        markeredgewidth=1.6,
        linestyle="none",
        zorder=5,
    )
    return fig


def _around(majority: int, minority: int, ratio: float, energy: float) -> PhaseDiagram:
    """Return the usual diagram, made wide enough to have the problem well inside."""
    usual = phase_diagram(majority, minority, imbalance=[1.0]).energy.tolist()
    return phase_diagram(
        majority,
        minority,
        imbalance=np.geomspace(1, max(_LARGEST_RATIO, _ROOM * ratio), _POINTS),
        energy=np.geomspace(
            min(usual[0], energy / _ROOM), max(usual[-1], energy * _ROOM), _POINTS
        ),
    )


def _checked(problem: PeeledProblem) -> float:
    """Return the product of energies."""
    energy = problem.energy
    free = problem.features == "free" and problem.class_weights is None
    if (
        energy is None
        or energy.per != "class"
        or not free
        or not is_layer_peeled(problem.class_level())
    ):
        raise ValueError(
            "A phase diagram needs the Layer-Peeled Model: `energy` per class, plain "
            "cross-entropy, free features, and no bias, class weights or narrow width. "
            "Change these, or leave the diagram out."
        )
    return energy.product


def _two_groups(counts: tuple[float, ...]) -> tuple[ClassGroups, float]:
    """Return the two groups, exactly where there are two counts, and their ratio."""
    exact = count_groups(counts)
    groups = split_classes(counts)
    if len(exact) == 2:
        groups = ClassGroups(exact[0].classes, exact[1].classes)
    if len(groups.minority) < 2:
        raise ValueError(
            "A phase diagram needs at least 2 minority classes, whose cosine it shows; "
            f"got {len(groups.minority)}. Leave the diagram out."
        )
    means = [
        float(np.mean([counts[k] for k in part]))
        for part in (groups.majority, groups.minority)
    ]
    return groups, means[0] / means[1]
