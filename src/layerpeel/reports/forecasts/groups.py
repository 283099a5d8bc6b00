"""What a solution says of each group of classes, or of each part of a long tail."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel._json import plain
from layerpeel._tolerances import VANISHED_NORM
from layerpeel.geometry import Geometry, block_mean
from layerpeel.program import PeeledProblem, Solution
from layerpeel.program.reduction import alike

# More groups than this are a long tail, shown in parts.
MOST_GROUPS = 12
TAIL_PARTS = 8


class State(enum.Enum):
    """What became of a group of classes. The value is what a reader sees."""

    APART = "apart"
    DRAWN_TOGETHER = "drawn together"
    MERGED = "merged"
    NO_FEATURE = "no feature"
    VANISHED = "vanished"
    MIXED = "in part collapsed"

    @property
    def collapsed(self) -> bool:
        """Whether the network cannot tell some of these classes apart."""
        return self not in (State.APART, State.DRAWN_TOGETHER)


@dataclass(frozen=True)
class GroupForecast:
    """A group of classes that are alike, or a part of a long tail.

    Attributes:
        classes: Their indices.
        fewest: The least of their counts.
        most: The largest.
        classifier_norm: Mean norm of the classifiers.
        feature_norm: Mean norm of the class means.
        classifier_cosine: Mean cosine between their classifiers; NaN for a single class
            and for vanished ones.
        feature_cosine: The same between their class means.
        cosine_to_first: Mean cosine between their classifiers and those of the first
            group; NaN for the first.
        state: What became of them. They are drawn together where they, or some of them,
            have no more samples than classes merge at and yet differ, as their counts
            do.
        collapsed: How many of them have vanished or merged.
        drawn_together: How many of them are drawn together.
        merges_at: The mean count up to which such classes merge, everything else held
            as it is; ``None`` where no threshold is known.
    """

    classes: tuple[int, ...]
    fewest: float
    most: float
    classifier_norm: float
    feature_norm: float
    classifier_cosine: float
    feature_cosine: float
    cosine_to_first: float
    state: State
    collapsed: int
    drawn_together: int
    merges_at: float | None

    @property
    def counts(self) -> str:
        """The counts in words."""
        return counts_text(self.fewest, self.most)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; undefined is ``None``."""
        content: dict[str, Any] = plain(asdict(self) | {"state": self.state.name})
        return content


def group_forecasts(
    problem: PeeledProblem,
    solution: Solution,
    merging: Float64[Tensor, " K"] | None,
) -> tuple[GroupForecast, ...]:
    """Return what became of each group, the most frequent classes first.

    Args:
        problem: The problem.
        solution: Its solution.
        merging: The counts up to which classes merge, as by
            :func:`~layerpeel.program.merging.merging_counts`.

    Returns:
        One entry for each group of classes that are alike; for more than ``MOST_GROUPS``
        of them, ``TAIL_PARTS`` entries of about as many classes each.
    """
    groups = sorted(
        alike(problem.class_level()), key=lambda group: -problem.class_counts[group[0]]
    )
    below = _below(problem, merging)
    states = _states(solution.geometry, groups, below)
    parts = groups if len(groups) <= MOST_GROUPS else _parts(groups)
    return tuple(
        _group_forecast(problem, solution.geometry, part, parts[0], states, merging)
        for part in parts
    )


def _group_forecast(
    problem: PeeledProblem,
    geometry: Geometry,
    part: tuple[int, ...],
    first: tuple[int, ...],
    states: dict[int, State],
    merging: Tensor | None,
) -> GroupForecast:
    index, counts = list(part), [problem.class_counts[k] for k in part]
    found = [states[k] for k in part]
    across = geometry.classifier_cosines[index][:, list(first)]
    return GroupForecast(
        classes=part,
        fewest=min(counts),
        most=max(counts),
        classifier_norm=float(geometry.classifier_norms[index].mean()),
        feature_norm=float(geometry.feature_norms[index].mean()),
        classifier_cosine=block_mean(geometry.classifier_cosines, part),
        feature_cosine=block_mean(geometry.feature_cosines, part),
        cosine_to_first=math.nan if part == first else float(across.mean()),
        state=_common(found),
        collapsed=sum(state.collapsed for state in found),
        drawn_together=found.count(State.DRAWN_TOGETHER),
        merges_at=None if merging is None else float(merging[index].mean()),
    )


def _common(found: Sequence[State]) -> State:
    """Return the state of a part of a tail by those of its classes."""
    if len(set(found)) == 1:
        return found[0]
    fallen = any(state.collapsed for state in found)
    return State.MIXED if fallen else State.DRAWN_TOGETHER


def _below(problem: PeeledProblem, merging: Tensor | None) -> Bool[Tensor, " K"]:
    """Whether classes are too rare to be told apart; one alone has no other to meet."""
    counts = torch.tensor(problem.class_counts, dtype=torch.float64)
    none = torch.zeros_like(counts, dtype=torch.bool)
    if merging is None:
        return none
    below = merging >= counts
    return below if int(below.sum()) > 1 else none


def _parts(groups: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return about equally many classes in each part, in the order of the groups."""
    classes = tuple(k for group in groups for k in group)
    cuts = [round(i * len(classes) / TAIL_PARTS) for i in range(TAIL_PARTS + 1)]
    return [classes[a:b] for a, b in pairwise(cuts)]


def _states(
    geometry: Geometry, groups: Sequence[tuple[int, ...]], below: Bool[Tensor, " K"]
) -> dict[int, State]:
    """Return the state of every class."""
    absent = _is_zero(geometry.classifier_norms), _is_zero(geometry.feature_norms)
    states: dict[int, State] = {}
    for group in groups:
        state = _state(geometry, group, *absent)
        if state is State.APART and bool(below[list(group)].all()):
            state = State.DRAWN_TOGETHER
        states |= dict.fromkeys(group, state)
    return states


def _state(
    geometry: Geometry,
    group: tuple[int, ...],
    no_classifier: Bool[Tensor, " K"],
    no_feature: Bool[Tensor, " K"],
) -> State:
    index = list(group)
    if bool(no_feature[index].all()):
        gone = bool(no_classifier[index].all())
        return State.VANISHED if gone else State.NO_FEATURE
    return State.MERGED if _has_merged(geometry, index) else State.APART


def _has_merged(geometry: Geometry, classes: list[int]) -> bool:
    """Whether the classifiers of two or more classes are the same vector."""
    if len(classes) < 2:
        return False
    gram = geometry.classifier_gram[classes][:, classes]
    squares = gram.diagonal()
    between = squares[:, None] + squares - 2 * gram  # |w_k - w_l|^2
    longest = geometry.classifier_gram.diagonal().max()
    return bool(between.max() <= VANISHED_NORM**2 * longest)


def _is_zero(norms: Float64[Tensor, " K"]) -> Bool[Tensor, " K"]:
    return norms <= VANISHED_NORM * norms.nan_to_num().max()


def counts_text(fewest: float, most: float) -> str:
    """Return a range of counts in words, the largest first."""
    low, high = _count_text(fewest), _count_text(most)
    return low if low == high else f"{high} to {low}"


def _count_text(count: float) -> str:
    return f"{count:.0f}" if count >= 1000 or count == round(count) else f"{count:.4g}"
