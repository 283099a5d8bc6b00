"""From near a critical point down to it: Newton steps on the gradient norm."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError, at_least, positive
from layerpeel._progress import track
from layerpeel.landscape.reduction import LossFunction
from layerpeel.landscape.risk import Risk

# Singular values of the Hessian below this share of the largest are left out of the
# inverse; where that overshoots, more of them are.
_CUTOFFS = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)

# Steps are shortened down to this before they are given up.
_LENGTHS = tuple(2.0**-k for k in range(8))

# A step that brings the gradient down by this factor is taken without a look at others.
_GOOD = 0.5

# Any step has to bring it down by as much, or the steps have stalled.
_PROGRESS = 1.0 - 1e-4


class PolishStatus(enum.Enum):
    """How polishing ended. The value is the sentence shown to the user."""

    CONVERGED = "The gradient norm is at most `tolerance`."
    STALLED = (
        "No step brings the gradient down: it is in the kernel of the Hessian, a kink is "
        "in the way, or there is no Hessian. Train on, or start elsewhere."
    )
    MAX_STEPS = "The step limit was reached. Raise `max_steps`, or train on before."

    @property
    def success(self) -> bool:
        """Whether the point is critical to the tolerance."""
        return self is PolishStatus.CONVERGED


@dataclass(frozen=True, eq=False)
class Polished:
    """A model at a critical point, or as near as it got.

    Attributes:
        model: A new model in float64; its modules are in the caller's modes.
        status: How it ended; the value is advice.
        loss: The risk.
        gradient_norm: The length of the gradient.
        initial_gradient_norm: That at the caller's model.
        steps: How many steps were taken.
        moved: How far the parameters moved.
    """

    model: nn.Module
    status: PolishStatus
    loss: float
    gradient_norm: float
    initial_gradient_norm: float
    steps: int
    moved: float


def polish(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    tolerance: float = 1e-12,
    max_steps: int = 100,
    limit: int = 1000,
    reduction: str = "mean",
    progress: bool | None = None,
) -> Polished:
    r"""Bring the gradient norm of a small network down to rounding.

    Newton steps :math:`-H^+ g` in float64 with the pseudo-inverse of the dense Hessian:
    flat directions, of which networks have many, do not move. A step is shortened, or
    leaves out more small eigenvalues, until the gradient norm comes down. The nearest
    critical point of any kind is the aim: a saddle too. Train until the gradient is
    small, and polish then.

    After ``tolerance`` is reached, steps go on while each halves the gradient, since
    eigenvalues that are zero are known as well as the gradient is.

    References:
        | Numerically Recovering the Critical Points of a Deep Linear Autoencoder (Frye
        | et al., 2019), https://arxiv.org/abs/1901.10603

    Args:
        model: Any module; it stays as it is.
        loss_fn: Takes outputs and targets, returns a scalar.
        data: Batches ``(input, target)``; read once.
        tolerance: The gradient norm to reach.
        max_steps: The limit on steps.
        limit: The largest number of parameters: each step has a dense Hessian and its
            eigenvectors.
        reduction: What ``loss_fn`` does over the samples of a batch: ``"mean"`` or
            ``"sum"``.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Raises:
        ValueError: If there are more parameters than ``limit``, a number is out of its
            range, or model, loss and data define no risk; see :meth:`Risk.of`.

    Example:
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> model = nn.Linear(1, 1)
        >>> polished = polish(model, nn.functional.mse_loss, [(x, 2 * x + 1)])
        >>> polished.status.name, [round(p.item(), 9) for p in polished.model.parameters()]
        ('CONVERGED', [2.0, 1.0])
    """
    positive("tolerance", tolerance)
    at_least("max_steps", max_steps, 0)
    risk = Risk.of(model, loss_fn, data, reduction=reduction, progress=progress)
    if risk.size > limit:
        raise ValueError(
            f"`model` must have at most {limit} trainable parameters to be polished, "
            f"since each step needs a dense Hessian; it has {risk.size}. Freeze some, or "
            "raise `limit`."
        )
    descent = _descent(risk, tolerance, max_steps)
    places = list(track(descent, "Polishing", show=progress))
    first, last = places[0], places[-1]
    status = _status(last, tolerance, max_steps)
    new = deepcopy(model).to(torch.float64)
    risk.parameters.write(new, last.point)
    return Polished(
        model=new,
        status=status,
        loss=risk.value(last.point),
        gradient_norm=last.norm,
        initial_gradient_norm=first.norm,
        steps=last.steps,
        moved=float((last.point - risk.point).norm()),
    )


@dataclass(frozen=True, eq=False)
class _Place:
    """A point on the way, with its gradient."""

    point: Float64[Tensor, " p"]
    gradient: Float64[Tensor, " p"]
    steps: int

    @property
    def norm(self) -> float:
        return float(self.gradient.norm())


def _descent(risk: Risk, tolerance: float, max_steps: int) -> Iterator[_Place]:
    """Yield places of ever smaller gradient."""
    place = _Place(risk.point, risk.gradient(), 0)
    yield place
    while place.norm > 0 and place.steps < max_steps:
        # Down at the tolerance, a step has to be worth its while.
        settled = place.norm <= tolerance
        following = _best(risk, place, settled)
        enough = _GOOD if settled else _PROGRESS
        if following is None or following.norm > enough * place.norm:
            return
        place = following
        yield place


def _best(risk: Risk, place: _Place, settled: bool) -> _Place | None:
    """Return the first good step, or the best of all that were tried."""
    best: _Place | None = None
    for step in _steps(risk, place, settled):
        point = place.point + step
        # A step below the last place of all parameters is none.
        if torch.equal(point, place.point):
            continue
        gradient = risk.gradient(point)
        if not bool(gradient.isfinite().all()):
            continue
        tried = _Place(point, gradient, place.steps + 1)
        if best is None or tried.norm < best.norm:
            best = tried
        if best.norm <= _GOOD * place.norm:
            return best
    return best


def _steps(risk: Risk, place: _Place, settled: bool) -> Iterator[Tensor]:
    """Yield Newton steps, the boldest first; where settled, only those of full length.

    A shorter one would not halve the gradient.
    """
    try:
        matrix = risk.hessian(place.point, progress=False)
    except NonFiniteError:
        return
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    largest = float(values.abs().max())
    if largest == 0:
        return
    along = vectors.T @ place.gradient
    kept = [values.abs() > cutoff * largest for cutoff in _CUTOFFS]
    # Where no eigenvalue is between two cutoffs they give the same step.
    different = {int(mask.sum()): mask for mask in kept}
    newton = [
        -vectors @ torch.where(m, along / values, 0.0) for m in different.values()
    ]
    for length in _LENGTHS[:1] if settled else _LENGTHS:
        yield from (length * step for step in newton)
    if settled:
        return
    # Along the gradient of the squared gradient norm, which always goes down.
    uphill = matrix @ place.gradient / largest**2
    yield from (-length * uphill for length in _LENGTHS)


def _status(place: _Place, tolerance: float, max_steps: int) -> PolishStatus:
    if place.norm <= tolerance:
        return PolishStatus.CONVERGED
    stopped = place.steps >= max_steps
    return PolishStatus.MAX_STEPS if stopped else PolishStatus.STALLED
