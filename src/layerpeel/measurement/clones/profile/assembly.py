"""From the samples of a layer, or their covariance, to a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from layerpeel._warnings import warn
from layerpeel.measurement.clones.evidence.nulls import NullCurves, spectrum_null
from layerpeel.measurement.clones.layer.layer_data import LayerData, same_layer
from layerpeel.measurement.clones.profile.curves import CloneCurves
from layerpeel.measurement.clones.profile.error_curves import (
    GAUSSIAN_CLASSES,
    ErrorCurves,
    error_curves,
    expects,
    hidden_error_curves,
)
from layerpeel.measurement.clones.profile.profile import CloneProfile
from layerpeel.measurement.clones.profile.protocol import Protocol
from layerpeel.measurement.clones.profile.reconstruction_curves import (
    Grid,
    Reconstructed,
    ReconstructionCurves,
    quietly,
    reconstruction_curves,
)
from layerpeel.measurement.clones.reconstruction.ceiling import reconstruction_ceiling
from layerpeel.measurement.clones.reconstruction.silent import silenced, silent_neurons
from layerpeel.measurement.statistics.covariance import Covariance

# Random rotations of a layer; a few suffice, since each averages over all its neurons.
_ROTATIONS = 10
# Rotating a layer takes a factorisation of W^3 operations: wide ones get fewer.
_WIDE, _FEW_ROTATIONS = 1024, 2


def profile_of(
    protocol: Protocol,
    data: LayerData,
    held_out: LayerData | None,
    fresh: LayerData | str,
) -> CloneProfile:
    """Profile a layer on its data.

    Args:
        protocol: How.
        data: What reconstructions are fitted to.
        held_out: Other data.
        fresh: The same data through an untrained copy, or why there is none.
    """
    if held_out is not None:
        same_layer(data, held_out)
    grid = protocol.grid(data.width)
    covariance = data.covariance()
    _warn_of_few(covariance)
    silent = silent_neurons(covariance, data.samples(), data.eps)
    fitted_to = covariance if protocol.paper else silenced(covariance, silent)
    reads = data.consumer if data.classifies else None
    found = reconstruction_curves(
        grid,
        fitted_to,
        None if held_out is None else held_out.covariance(),
        None if reads is None else (reads.weight, reads.bias),
        paper=protocol.paper,
        eps=data.eps,
        progress=protocol.progress,
    )
    sets = [one for one in (data, held_out) if one is not None]
    errors = [_errors(protocol, grid, one, fitted_to, found) for one in sets]
    causes = [
        _why_no_consumer(data),
        _why_not_expected(data),
        *(_why_no_errors(one) for one in sets),
    ]
    if isinstance(fresh, str):
        causes.append(fresh)
    profile = assembled(
        protocol,
        grid,
        covariance,
        silent,
        found,
        errors,
        eps=data.eps,
        layer=data.layer,
        untrained=None if isinstance(fresh, str) else _fresh(protocol, grid, fresh),
        causes=tuple(dict.fromkeys(filter(None, causes))),
    )
    return replace(profile, consumer=data.consumer, _data=data, _held_out_data=held_out)


def _errors(
    protocol: Protocol,
    grid: Grid,
    data: LayerData,
    covariance: Covariance,
    found: Reconstructed,
) -> ErrorCurves:
    if not data.decides:
        return ErrorCurves.unknown(grid)
    if data.classifies:
        return error_curves(grid, data, found.folded, progress=protocol.progress)
    return hidden_error_curves(
        grid, data, covariance, paper=protocol.paper, progress=protocol.progress
    )


def _why_no_consumer(data: LayerData) -> str:
    return data.cause and f"Nothing can be folded into a consumer: {data.cause}."


def _why_not_expected(data: LayerData) -> str:
    if data.consumer is None or not data.classifies or expects(len(data.consumer.bias)):
        return ""
    return (
        "The expected error without drawing chunks is computed for 2 to "
        f"{GAUSSIAN_CLASSES} logits; there are {len(data.consumer.bias)}."
    )


def _why_no_errors(data: LayerData) -> str:
    if data.decides:
        return ""
    missing = "weights that read it" if data.labelled else "labels"
    return f"There are no errors: `{data.name}` has no {missing}."


def _fresh(protocol: Protocol, grid: Grid, data: LayerData) -> CloneCurves:
    """Return the reconstruction curves of an untrained copy on its own data."""
    covariance = data.covariance()
    silent = silent_neurons(covariance, data.samples(), data.eps)
    found = reconstruction_curves(
        grid,
        covariance if protocol.paper else silenced(covariance, silent),
        paper=protocol.paper,
        eps=data.eps,
        progress=protocol.progress,
    )
    return _curves(found.fitted, ErrorCurves.unknown(grid))


def assembled(
    protocol: Protocol,
    grid: Grid,
    covariance: Covariance,
    silent: Bool[Tensor, " W"],
    found: Reconstructed,
    errors: Sequence[ErrorCurves] = (),
    *,
    eps: float,
    layer: str = "",
    untrained: CloneCurves | None = None,
    causes: tuple[str, ...] = (),
) -> CloneProfile:
    """Put curves together, with the null that a covariance has by itself."""
    unknown = ErrorCurves.unknown(grid)
    fitted, *others = [*errors, unknown, unknown][: 1 + (found.held_out is not None)]
    return CloneProfile(
        layer=layer,
        width=covariance.width,
        widths=tuple(grid.widths),
        scope=protocol.scope,
        paper=protocol.paper,
        fitted=_curves(found.fitted, fitted),
        held_out=_curves(found.held_out, *others) if found.held_out else None,
        covariance=covariance,
        eps=eps,
        silent=silent.nonzero().flatten(),
        held_out_covariance=found.held_out.covariance if found.held_out else None,
        shared=_shared(found, eps),
        spectrum=_spectrum(protocol, grid, found.fitted.covariance),
        untrained=untrained,
        consumer=None,
        cause=causes,
    )


def _shared(found: Reconstructed, eps: float) -> float:
    held_out = None if found.held_out is None else found.held_out.covariance
    with quietly():
        return reconstruction_ceiling(found.fitted.covariance, held_out, eps=eps)


def _curves(found: ReconstructionCurves, errors: ErrorCurves) -> CloneCurves:
    return CloneCurves(
        count=int(found.covariance.count),
        full_error=errors.full,
        errors=errors.errors,
        r_squared=found.r_squared,
        correlation=found.correlation,
        expected=errors.expected,
    )


def _spectrum(
    protocol: Protocol, grid: Grid, covariance: Covariance
) -> NullCurves | None:
    """Return the curves of random rotations, at widths below the layer's."""
    widths = [w for w in grid.chunks if w < covariance.width]
    if not widths or covariance.count < 2:
        return None
    rotations = _ROTATIONS if covariance.width <= _WIDE else _FEW_ROTATIONS
    with quietly():
        return spectrum_null(
            covariance,
            widths,
            protocol.generator,
            repeats=rotations,
            scope=protocol.scope,
        )


def _warn_of_few(covariance: Covariance) -> None:
    count, width = int(covariance.count), covariance.width
    if count - 1 < width:
        warn(
            f"There should be more samples than neurons; got {count} for {width}. Chunks "
            f"of {max(1, count - 1)} neurons then reconstruct everything in sample: read "
            "R^2 on held-out data, or pass more samples.",
            UserWarning,
        )
