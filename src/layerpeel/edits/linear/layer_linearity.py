"""How linear one layer acts on data, and whether it can be merged into its reader."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from layerpeel._checks import EditError
from layerpeel._json import plain
from layerpeel._tolerances import CONSTANT_ULPS, VANISHED_NORM
from layerpeel.edits.linear.composition import check_composable
from layerpeel.edits.linear.folding import Folded, folded
from layerpeel.edits.linear.lines import Lines, lines_of
from layerpeel.edits.linear.looking import Seen
from layerpeel.edits.linear.place import Place
from layerpeel.edits.linear.residual import residual_of
from layerpeel.edits.resizing import Channels


@dataclass(frozen=True, eq=False)
class LayerLinearity:
    r"""How linear the neurons of one layer act, on some data.

    Attributes:
        path: The path of the linear layer or convolution.
        activation: The name of its activation's type; ``"Identity"`` without one.
        readers: The paths of the layers that read it.
        correlation: The size of the correlation of each neuron's features and
            pre-activations; NaN for constant ones.
        constant: Which neurons have a constant pre-activation or constant features.
        idle: Which neurons have no incoming or no outgoing weights.
        slope: The slope of each neuron's line.
        intercept: Its intercept.
        inside: Which neurons have all their pre-activations inside one affine piece of
            the activation, whose line that is; others have their least-squares line.
        margin: The distance of each neuron's pre-activations to the ends of its piece,
            or below zero how far the nearest piece is from holding them; NaN if the
            activation has no piece.
        exact: Whether all neurons are inside, but for those that nothing is read from.
        residual: The relative root mean square change of what the readers return, if
            all neurons followed their lines; NaN if undefined.
        residual_by: ``"exact"``, ``"bound"`` or ``"undefined"``.
        entropy: Entropy of on against off in bits, the mean over neurons.
        blocked: Why it cannot be merged into its reader; empty if it can.
        causes: Why numbers are NaN.
    """

    path: str
    activation: str
    readers: tuple[str, ...]
    correlation: Float64[Tensor, " m"]
    constant: Bool[Tensor, " m"]
    idle: Bool[Tensor, " m"]
    slope: Float64[Tensor, " m"]
    intercept: Float64[Tensor, " m"]
    inside: Bool[Tensor, " m"]
    margin: Float64[Tensor, " m"]
    exact: bool
    residual: float
    residual_by: str
    entropy: float
    blocked: str = ""
    causes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """The number of neurons, or channels."""
        return len(self.slope)

    @property
    def minimal_correlation(self) -> float:
        """The smallest correlation of a neuron that is neither constant nor idle.

        NaN if there is none.
        """
        counted = self.correlation[~self.constant & ~self.idle]
        return float(counted.min()) if len(counted) else math.nan

    @property
    def least_margin(self) -> float:
        """The least margin of a neuron that has incoming and outgoing weights.

        NaN if there is none, or the activation has no piece.
        """
        counted = self.margin[~self.idle]
        return float(counted.min()) if len(counted) else math.nan

    @property
    def mergeable(self) -> bool:
        """Whether it can be merged into its reader, where it acts linearly enough."""
        return not self.blocked

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON; undefined is ``None``."""
        content: dict[str, Any] = plain(
            {
                "path": self.path,
                "activation": self.activation,
                "readers": self.readers,
                "width": self.width,
                "minimal_correlation": self.minimal_correlation,
                "constant": self.constant.nonzero().flatten(),
                "idle": self.idle.nonzero().flatten(),
                "exact": self.exact,
                "margin": self.least_margin,
                "residual": self.residual,
                "residual_by": self.residual_by,
                "on_off_entropy": self.entropy,
                "mergeable": self.mergeable,
                "blocked": self.blocked,
            }
        )
        return content


@dataclass(frozen=True, eq=False)
class Judged:
    """A place with all that is known of it.

    Attributes:
        place: The place.
        lines: The lines of its neurons.
        between: What stands between it and its reader; ``None`` if it is blocked.
        row: What is told of it.
    """

    place: Place
    lines: Lines
    between: Folded | None
    row: LayerLinearity


def judged(place: Place, seen: Seen) -> Judged:
    """Return what is known of a place that was looked at."""
    fit = seen.fit
    eps = torch.finfo(place.producer.module.weight.dtype).eps
    deviation = (fit.input_scatter / fit.count).sqrt()
    still = deviation <= CONSTANT_ULPS * eps * fit.input_mean.abs()
    still |= fit.input_low >= fit.input_high
    lines = lines_of(place.layer.activation, fit, still)
    deviation = (fit.output_scatter / fit.count).sqrt()
    constant = still | (deviation <= CONSTANT_ULPS * eps * fit.output_mean.abs())
    correlation = fit.correlation.abs()
    if not seen.whole:
        # On a line it is one, or there is none.
        # What is read of no piece is not known; of zero weights nothing is.
        lines = replace(
            lines,
            slope=lines.slope.nan_to_num(nan=0.0),
            intercept=lines.intercept.nan_to_num(nan=0.0),
        )
        constant |= lines.inside & (lines.slope == 0)
        correlation = torch.where(lines.inside, 1.0, torch.nan).double()
    outgoing = _outgoing(place)
    idle = _incoming(place) | _vanished(outgoing)
    blocked, between = _way(place, seen, lines)
    residual = residual_of(place, seen, lines)
    causes = (
        [f"its residual is undefined, as {residual.cause}"] if residual.cause else []
    )
    if bool((constant | idle).all()):
        why = "every neuron is constant, or without incoming or outgoing weights"
        causes.append(f"its minimal correlation is undefined, as {why}")
    activation = place.layer.activation
    row = LayerLinearity(
        path=place.path,
        activation="Identity" if activation is None else type(activation).__name__,
        readers=tuple(route.consumer.path for route in place.routes),
        correlation=correlation.masked_fill(constant, torch.nan),
        constant=constant,
        idle=idle,
        slope=lines.slope,
        intercept=lines.intercept,
        inside=lines.inside,
        margin=lines.margin,
        exact=bool((lines.inside | (outgoing == 0)).all()),
        residual=residual.value,
        residual_by=residual.how,
        entropy=float(seen.patterns.entropy.mean()),
        blocked=blocked,
        causes=tuple(causes),
    )
    return Judged(place, lines, between, row)


def _way(place: Place, seen: Seen, lines: Lines) -> tuple[str, Folded | None]:
    """Return what is in the way of a merge, and else what stands between."""
    if place.blocked:
        return place.blocked, None
    if place.reader.path in seen.reshaped:
        return (
            f"features change their shape before {place.reader.path!r} reads them",
            None,
        )
    per_channel = bool(place.norms or place.after[0]) or lines_differ(place)
    if per_channel and place.producer.module.weight.ndim == 2 and seen.axes != 2:
        return "channels are not the last axis of what it returns", None
    between = folded(place, lines)
    try:
        check_composable(place, between)
    except EditError as error:
        return str(error), None
    return "", between


def lines_differ(place: Place) -> bool:
    """Whether the activation has parameters of each channel's own."""
    activation = place.layer.activation
    own = [] if activation is None else list(activation.parameters())
    return any(parameter.numel() > 1 for parameter in own)


def _incoming(place: Place) -> Bool[Tensor, " m"]:
    return _vanished(
        place.producer.module.weight.detach().double().flatten(1).norm(dim=1)
    )


def _outgoing(place: Place) -> Float64[Tensor, " m"]:
    """Return the length of each neuron's outgoing weights; infinite if unknown."""
    width, squares = place.width, torch.zeros(place.width, dtype=torch.float64)
    # Flattened maps are read channel by channel, flattened tokens place by place.
    channels = Channels(width, isinstance(place.producer.module, nn.Linear))
    for route in place.routes:
        weight = route.consumer.module.weight.detach().double().cpu()
        if weight.shape[1] % width:
            return torch.full_like(squares, torch.inf)
        squares += channels.split(weight, 1).flatten(2).square().sum((0, 2))
    return (
        squares.sqrt()
        if place.routes and not place.layer.others
        else squares + torch.inf
    )


def _vanished(lengths: Tensor) -> Bool[Tensor, " m"]:
    """Which lengths are nothing against the largest one."""
    cut = VANISHED_NORM * lengths.max()
    return ((lengths == 0) | (lengths < cut)).cpu() & lengths.isfinite().cpu()
