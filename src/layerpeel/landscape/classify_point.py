"""What kind of point of the loss landscape a model is at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from layerpeel._checks import NonFiniteError, at_least, positive
from layerpeel._tolerances import CRITICAL_GRADIENT
from layerpeel._warnings import warn
from layerpeel.landscape.critical_point import CriticalPoint, Kind, LandscapeWarning
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.kinks import Kinks, kinks
from layerpeel.landscape.reduction import LossFunction
from layerpeel.landscape.risk import Risk
from layerpeel.landscape.spectrum import Spectrum


def classify_point(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    dense_limit: int = 5000,
    num_eigenvalues: int = 1,
    gradient_tolerance: float = CRITICAL_GRADIENT,
    fibre_dimension: int | None = None,
    reduction: str = "mean",
    progress: bool | None = None,
) -> CriticalPoint:
    r"""Say what kind of point a model is at: its gradient, its Hessian, and what is proved.

    Everything is computed in float64, on a copy in eval mode, and is about the
    unregularised risk of the given data. Up to ``dense_limit`` parameters all
    eigenvalues are computed; beyond, those at both ends by Lanczos.

    A **strict saddle** is a point with a small gradient and a direction :math:`v` with
    :math:`v^\top H v < 0`, beyond rounding and beyond what the gradient may add to an
    eigenvalue. A **local minimum** is claimed only where the dense Hessian has no
    negative eigenvalue, none is undecided, and exactly as many are zero as the fibre has
    dimensions along which the risk is constant. Symmetries make such fibres: each ReLU
    neuron can be rescaled, and lifted networks have more. With ``fibre_dimension``
    omitted a minimum is claimed only if no eigenvalue is zero.

    References:
        | Embedding Principle: a hierarchical structure of loss landscape of deep neural
        | networks (Zhang et al., 2021), https://arxiv.org/abs/2111.15527: strict saddles
        | of networks

    Args:
        model: Any module; it stays as it is. Its trainable parameters are the variables.
        loss_fn: Takes outputs and targets, returns a scalar.
        data: Batches ``(input, target)``; read once.
        dense_limit: The largest number of parameters for a dense Hessian, which takes
            about :math:`50 p^2` bytes with its eigenvectors, 1.2 GB for 5,000, and the
            time of :math:`p` products.
        num_eigenvalues: How many eigenvalues to find at each end beyond that.
        gradient_tolerance: The largest gradient norm of a critical point.
        fibre_dimension: The dimension of a fibre of constant risk through the point,
            which the caller can exhibit.
        reduction: What ``loss_fn`` does over the samples of a batch: ``"mean"`` or
            ``"sum"``.
        progress: Whether to show progress bars; on a terminal when omitted.

    Returns:
        The point. Its ``warnings`` are also issued as :class:`LandscapeWarning`.

    Raises:
        ValueError: If a number is out of its range, or model, loss and data define no
            risk; see :meth:`Risk.of`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> _ = [parameter.data.zero_() for parameter in model.parameters()]
        >>> data = [(torch.ones(2, 1), torch.ones(2, 1))]
        >>> point = classify_point(model, nn.functional.mse_loss, data)
        >>> point.kind.name, point.inertia.signs, point.eigenvalues.tolist()
        ('STRICT_SADDLE', (1, 0, 1), [-2.0, 2.0])
    """
    at_least("dense_limit", dense_limit, 0)
    at_least("num_eigenvalues", num_eigenvalues, 1)
    positive("gradient_tolerance", gradient_tolerance)
    if fibre_dimension is not None:
        at_least("fibre_dimension", fibre_dimension, 0)
    risk = Risk.of(model, loss_fn, data, reduction=reduction, progress=progress)
    return judged(
        risk,
        dense_limit=dense_limit,
        num_eigenvalues=num_eigenvalues,
        gradient_tolerance=gradient_tolerance,
        fibre_dimension=fibre_dimension,
        progress=progress,
    )


def judged(
    risk: Risk,
    *,
    dense_limit: int,
    num_eigenvalues: int,
    gradient_tolerance: float,
    fibre_dimension: int | None,
    progress: bool | None,
) -> CriticalPoint:
    """Return the point of a risk, with its verdict; see :func:`classify_point`."""
    gradient = risk.gradient()
    norm = float(gradient.norm())
    if not math.isfinite(norm):
        raise NonFiniteError(
            "The gradient must be finite; it holds NaN or infinity, though the risk is "
            "finite. Look for roots and norms at zero in the model and the loss."
        )
    if risk.size <= dense_limit:
        spectrum = Spectrum.dense(risk, norm, progress)
    else:
        spectrum = Spectrum.ends(risk, norm, num_eigenvalues)
    lowest = spectrum.lowest
    if float(gradient @ lowest.vector) > 0:
        lowest = replace(lowest, vector=-lowest.vector)
    curvature, touched = spectrum.curvature, kinks(risk)
    kind = (
        Kind.NOT_CRITICAL
        if norm > gradient_tolerance
        else _kind(
            _Evidence(risk, gradient, spectrum, curvature, touched), fibre_dimension
        )
    )
    cautions = _cautions(risk, kind, spectrum, touched, norm, fibre_dimension)
    for caution in cautions:
        warn(caution, LandscapeWarning)
    return CriticalPoint(
        kind=kind,
        loss=risk.value(),
        gradient_norm=norm,
        largest_gradient=float(gradient.abs().max()),
        inertia=spectrum.inertia,
        eigenvalues=spectrum.eigenvalues,
        lowest=lowest,
        highest=spectrum.highest,
        curvature=curvature,
        judged_above=spectrum.judged_above,
        kinks=touched,
        samples=risk.samples,
        parameters=risk.parameters,
        gradient_tolerance=gradient_tolerance,
        fibre_dimension=fibre_dimension,
        warnings=cautions,
    )


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What the kind of a critical point follows from."""

    risk: Risk
    gradient: Tensor
    spectrum: Spectrum
    curvature: Curvature
    touched: Kinks

    def is_strict_saddle(self) -> bool:
        """Whether curvature is negative, and is so at the critical point nearby."""
        decided, vector = self.spectrum.decided, self.spectrum.lowest.vector
        return decided.keep_negative(self.risk, self.gradient, vector)

    def is_definite(self) -> bool:
        """Whether the positive eigenvalues are so at the critical point nearby."""
        return self.spectrum.decided.keep_positive(self.risk, self.gradient)


def _kind(found: _Evidence, fibre: int | None) -> Kind:
    """Return the kind of a critical point."""
    if found.touched.are_touched:
        return Kind.AT_KINK
    inertia, margin = found.spectrum.inertia, found.spectrum.gradient_margin
    if found.curvature.is_below(margin):
        return Kind.STRICT_SADDLE if found.is_strict_saddle() else Kind.UNDECIDED
    if inertia is None:
        low = found.curvature.value < -found.spectrum.judged_above
        return Kind.UNDECIDED if low else Kind.NO_NEGATIVE_FOUND
    if inertia.negative or inertia.undecided or not found.is_definite():
        return Kind.UNDECIDED
    if inertia.zero == (fibre or 0):
        return Kind.LOCAL_MINIMUM
    return Kind.DEGENERATE_MINIMUM_CANDIDATE


def _cautions(
    risk: Risk,
    kind: Kind,
    spectrum: Spectrum,
    touched: Kinks,
    norm: float,
    fibre: int | None,
) -> tuple[str, ...]:
    inertia, found = spectrum.inertia, [*risk.notes]
    found.append(touched.caution)
    if spectrum.undecided:
        found.append(
            f"{spectrum.undecided} of {len(spectrum.eigenvalues)} eigenvalues are "
            f"undecided: they are not large against the gradient, whose norm is "
            f"{norm:.2e}, and may be zeros that it has moved. Train on, or `polish` a "
            "small network, first."
        )
    elif kind is Kind.UNDECIDED:
        found.append(
            "The eigenvalues are others at the critical point that Newton's step leads "
            "to, or are within rounding: it may be a degenerate one. `polish`, and judge "
            "again."
        )
    if kind is Kind.STRICT_SADDLE and inertia is not None and not inertia.negative:
        found.append(
            "The negative curvature is proved by itself, but is below the rounding of the "
            "largest eigenvalues: the inertia counts it as zero."
        )
    if fibre is not None and inertia is not None and inertia.zero < fibre:
        found.append(
            f"`fibre_dimension` is {fibre}, but only {inertia.zero} eigenvalues are zero: "
            "a risk that is constant along a fibre has as many. Is the point critical, "
            "and on the fibre?"
        )
    if not spectrum.converged:
        found.append(
            "Lanczos reached its limit before its tolerance: the eigenvalues are known up "
            "to their residuals only."
        )
    return tuple(caution for caution in found if caution)
