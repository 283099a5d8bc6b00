"""How narrow a layer could be: neurons to keep, and what leaving out the others costs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from layerpeel._json import plain
from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones import Kept, MeasuredChange

TOLERANCES = (0.1, 0.03, 0.01, 0.001)
"""Relative root-mean-square changes of the output that are asked for."""

# Random selections of the same width, over which a mean is taken.
_DRAWS = 3
# An elimination takes of the order of W^3 operations, and every row another one. At a
# width of 2,048 they take seconds; beyond it, going on until rounding takes minutes.
_WIDE, _FEW_TOLERANCES, _FEW_DRAWS = 1024, (0.1, 0.01), 1
_WIDEST = 2048


@dataclass(frozen=True)
class Narrower:
    """A layer narrowed down to some neurons, the others folded into its consumer.

    Attributes:
        tolerance: The relative change of the output that was allowed; 0 means none but
            rounding, and NaN that the width was given.
        width: How many neurons that takes.
        change: The relative change of the output on the training set.
        measured: What changed on held-out samples if there are any, and otherwise on
            those of the training set; ``None`` without samples or consumer.
        random_change: The mean change with as many neurons selected at random.
        random_error: Their mean error on the samples of ``measured``; NaN where there is
            none.
        draws: How many random selections these are means of.
    """

    tolerance: float
    width: int
    change: float
    measured: MeasuredChange | None
    random_change: float = math.nan
    random_error: float = math.nan
    draws: int = 0

    @property
    def errors(self) -> tuple[float, float]:
        """The error before and after; NaN where there is none."""
        if self.measured is None:
            return math.nan, math.nan
        return self.measured.error_before, self.measured.error_after

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; undefined numbers are ``None``."""
        content: dict[str, Any] = plain(asdict(self))
        return content


def narrower(profile: CloneProfile) -> tuple[Narrower, ...]:
    """Return how many neurons suffice for some tolerances, the largest first.

    Neurons are selected by pivots, once; every tolerance takes the first of them. Layers
    of more than 1,024 neurons get fewer tolerances and random selections, and those of
    more than 2,048 are not narrowed until nothing changes.

    Args:
        profile: The profile of the layer.

    Returns:
        One for each tolerance, the last one for 0; none where no output varies.
    """
    wide = profile.width > _WIDE
    tolerances = _FEW_TOLERANCES if wide else TOLERANCES
    draws = _FEW_DRAWS if wide else _DRAWS
    finest = profile.keep(tolerance=tolerances[-1] if profile.width > _WIDEST else 0.0)
    if math.isnan(finest.change.relative):
        return ()
    found = [_at(profile, tolerance, finest) for tolerance in tolerances]
    generator = torch.Generator().manual_seed(0)
    beside = [_with_random(one, profile, draws, generator) for one in found]
    if profile.width > _WIDEST:
        return tuple(beside)
    return (*beside, _of(0.0, finest))


def narrowed(profile: CloneProfile, width: int) -> Narrower:
    """Return the layer narrowed down to a number of neurons.

    Args:
        profile: The profile of the layer.
        width: How many neurons to keep.
    """
    draws = _FEW_DRAWS if profile.width > _WIDE else _DRAWS
    found = _of(math.nan, profile.keep(width=width))
    return _with_random(found, profile, draws, torch.Generator().manual_seed(0))


def _at(profile: CloneProfile, tolerance: float, finest: Kept) -> Narrower:
    """Take the first neurons that meet a tolerance, at least one of them."""
    enough = (finest.relative_changes[1:] <= tolerance).tolist()
    width = 1 + (enough.index(True) if True in enough else len(enough) - 1)
    if width == finest.width:
        return _of(tolerance, finest)
    return _of(tolerance, profile.keep(width=width))


def _of(tolerance: float, kept: Kept) -> Narrower:
    return Narrower(tolerance, kept.width, kept.change.relative, _judged(kept))


def _judged(kept: Kept) -> MeasuredChange | None:
    return kept.measured if kept.held_out is None else kept.held_out


def _with_random(
    found: Narrower, profile: CloneProfile, draws: int, generator: torch.Generator
) -> Narrower:
    """Put random selections of the same width beside a choice, unless it is of all."""
    if found.width == profile.width:
        return found
    kept = [
        profile.keep(width=found.width, select="random", generator=generator)
        for _ in range(draws)
    ]
    errors = [_of(found.tolerance, one).errors[1] for one in kept]
    return replace(
        found,
        random_change=sum(one.change.relative for one in kept) / draws,
        random_error=sum(errors) / draws,
        draws=draws,
    )
