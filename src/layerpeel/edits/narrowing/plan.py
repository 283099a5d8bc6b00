"""Which neurons of a layer to keep, and what its consumers become: one plan per method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import EditError
from layerpeel._tolerances import covariance_rank_tolerance
from layerpeel.edits.narrowing.clones import Clones
from layerpeel.edits.narrowing.cosine import Cosines
from layerpeel.edits.narrowing.critical import critical
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.readings import Readings
from layerpeel.edits.narrowing.request import Request
from layerpeel.edits.narrowing.substitution import GONE, Reading, Substitution


@dataclass(frozen=True, eq=False)
class Plan:
    """A narrower layer before it is built.

    Attributes:
        kept: The neurons kept, ascending.
        readings: The new weights of each consumer, by its path.
        leaders: The neuron that stands in for each, or -1.
        bound: The relative change to expect; ``None`` if nothing is known.
        bound_kind: What kind of bound that is.
        bound_per_input: A bound for every input, per unit of its length.
        threshold: The cosine at which neurons were grouped.
    """

    kept: Int64[Tensor, " w"]
    readings: Mapping[str, Reading]
    leaders: Int64[Tensor, " W"]
    bound: float | None
    bound_kind: str
    bound_per_input: float | None = None
    threshold: float | None = None


def planned(
    asked: Request, path: str, neurons: Neurons, readings: Readings | None
) -> Plan:
    """Return the plan that was asked for.

    Args:
        asked: The method, and how far to go.
        path: The path of the layer, for messages.
        neurons: Its neurons.
        readings: What the consumers read on data, if there are data.

    Raises:
        EditError: If the width cannot be reached that way.
    """
    if asked.method == "critical":
        return _critical(asked, path, neurons)
    if asked.method == "clones" and readings is not None:
        return _clones(asked, neurons, readings)
    return _cosine(asked, neurons, readings)


def _critical(asked: Request, path: str, neurons: Neurons) -> Plan:
    found, width = critical(neurons, asked.width), asked.width
    if width is not None and len(found.kept) > width:
        raise EditError(
            f"The method 'critical' changes no output, and takes {path!r} from "
            f"{neurons.width} neurons to {len(found.kept)} at the least; got "
            f"`width={width}`. Pass `method='clones'`, with data, or `method='cosine'` to "
            "go further at the price of a change, which is measured."
        )
    return Plan(found.kept, _read(neurons, found), found.leaders, 0.0, "proved")


def _clones(asked: Request, neurons: Neurons, readings: Readings) -> Plan:
    clones, width = Clones(readings), asked.width
    chosen = clones.of_width(width) if width else clones.within(asked.tolerance or 0.0)
    leaders = torch.full((neurons.width,), GONE)
    leaders[chosen.kept] = chosen.kept
    return Plan(chosen.kept, chosen.readings, leaders, chosen.change, _kind(readings))


def _cosine(asked: Request, neurons: Neurons, readings: Readings | None) -> Plan:
    cosines, threshold = Cosines(neurons), float(asked.cosine)
    if asked.width is not None:
        found, threshold = _as_narrow(cosines, asked.width, neurons.width)
    elif asked.tolerance is not None and readings is not None:
        found, threshold = _within(cosines, neurons, asked.tolerance, readings)
    else:
        found = cosines.grouped(threshold)
    new = _read(neurons, found)
    bound = None if readings is None else readings.change(new, found.kept)
    return Plan(
        found.kept, new, found.leaders, bound, _kind(readings),
        cosines.bound(found), threshold,
    )  # fmt: skip


def _kind(readings: Readings | None) -> str:
    if readings is None:
        return "none"
    return "exact" if readings.exact else "Minkowski"


def _as_narrow(cosines: Cosines, width: int, before: int) -> tuple[Substitution, float]:
    """Return the groups at the highest threshold that leaves so few neurons."""
    thresholds = cosines.thresholds
    low, high = -1, len(thresholds) - 1
    lowest = float(thresholds[high]) if len(thresholds) else 1.0
    if (least := len(cosines.grouped(lowest).kept)) > width:
        raise EditError(
            f"The method 'cosine' takes {before} neurons to {least} at the least here; "
            f"got `width={width}`. Neurons with slopes of their own, or that padding or "
            "pooling tells apart, do not merge. Pass `method='clones'`, with data."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if len(cosines.grouped(float(thresholds[middle])).kept) <= width:
            high = middle
        else:
            low = middle
    threshold = float(thresholds[high]) if len(thresholds) else 1.0
    return cosines.widened(cosines.grouped(threshold), width), threshold


def _within(
    cosines: Cosines, neurons: Neurons, tolerance: float, readings: Readings
) -> tuple[Substitution, float]:
    """Return the groups at the lowest threshold whose change stays within a tolerance."""
    least = max(tolerance, covariance_rank_tolerance(neurons.width, readings.eps))
    thresholds = cosines.thresholds
    # A threshold above all cosines groups nothing.
    best, threshold = cosines.grouped(2.0), 2.0
    low, high = -1, len(thresholds)
    while high - low > 1:
        middle = (low + high) // 2
        found = cosines.grouped(float(thresholds[middle]))
        if readings.change(_read(neurons, found), found.kept) <= least:
            low, best, threshold = middle, found, float(thresholds[middle])
        else:
            high = middle
    return best, min(threshold, 1.0)


def _read(neurons: Neurons, found: Substitution) -> dict[str, Reading]:
    return {chain.consumer.path: found.read(chain) for chain in neurons.chains}
