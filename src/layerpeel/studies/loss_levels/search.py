"""The search for critical points from one start: minimise, and polish what is near one."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from layerpeel._checks import at_least, positive
from layerpeel.landscape import LandscapeWarning, Risk, kinks, polish
from layerpeel.landscape.reduction import LossFunction


class Rejection(enum.Enum):
    """Why a point is no critical point of the network. The value is the sentence shown."""

    NOT_CRITICAL = "the gradient stays above the tolerance"
    FAR = "a parameter is beyond `largest`: the point may be at infinity"
    AT_KINK = "a sample is on a kink, where the risk has no gradient"
    DEAD = "the risk does not notice a parameter: a neuron is dead or saturated"


@dataclass(frozen=True)
class Search:
    """How to look for critical points, and which to accept.

    Attributes:
        iterations: The limit on iterations of the minimiser, BFGS.
        looks: How many further points are polished: of the start and the iterates where
            the gradient is smaller than before and after, as near saddles, those where
            it is smallest.
        near: The largest gradient norm of an iterate that is polished.
        polish_steps: The limit on Newton steps of each; it is given up before that if a
            step does not halve the gradient.
        gradient: The largest gradient norm of an accepted point.
        largest: The largest parameter of an accepted point, in absolute value.
        influence: A parameter whose row of the Hessian is smaller than this share of the
            largest row is not noticed by the risk.
    """

    iterations: int = 400
    looks: int = 2
    near: float = 1e-2
    polish_steps: int = 10
    gradient: float = 1e-10
    largest: float = 100.0
    influence: float = 1e-8

    def __post_init__(self) -> None:
        at_least("iterations", self.iterations, 1)
        at_least("looks", self.looks, 0)
        at_least("polish_steps", self.polish_steps, 1)
        positive("near", self.near)
        positive("gradient", self.gradient)
        positive("largest", self.largest)
        positive("influence", self.influence)


@dataclass(frozen=True, eq=False)
class Found:
    """The points that one start leads to.

    Attributes:
        points: Their parameters, with shape :math:`(k, p)`.
        losses: Their risks, with shape :math:`(k,)`.
        gradients: Their gradient norms, with shape :math:`(k,)`.
        rejections: Why each is rejected; ``None`` where it is accepted.
    """

    points: Float64[Tensor, "k p"]
    losses: Float64[Tensor, " k"]
    gradients: Float64[Tensor, " k"]
    rejections: tuple[Rejection | None, ...]


Batches = Sequence[object]
Vector = NDArray[np.float64]


def search_from(
    model: nn.Module, loss_fn: LossFunction, data: Batches, search: Search
) -> Found:
    """Minimise the risk from a start, and polish the end and what passed near a saddle.

    Args:
        model: The start; it stays as it is.
        loss_fn: Takes outputs and targets, returns a scalar, the mean over samples.
        data: Batches that can be read again.
        search: How to look.

    Returns:
        The points, that at the end first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LandscapeWarning)
        start = Risk.of(model, loss_fn, data, progress=False)
        objective = Objective(start, loss_fn)
        starts = _near_critical(objective, start.point, search)
        risks = [_polished(objective, at, data, search) for at in starts]
    gradients = [float(risk.gradient().norm()) for risk in risks]
    return Found(
        torch.stack([risk.point for risk in risks]),
        torch.tensor([risk.value() for risk in risks], dtype=torch.float64),
        torch.tensor(gradients, dtype=torch.float64),
        tuple(_rejection(r, g, search) for r, g in zip(risks, gradients, strict=True)),
    )


class Objective:
    """A risk and its gradient in one pass, for a minimiser that asks for thousands."""

    def __init__(self, risk: Risk, loss_fn: LossFunction) -> None:
        self.model, self.loss_fn = risk.model, loss_fn
        self.parameters, self.batches = risk.parameters, risk.batches
        named = dict(self.model.named_parameters())
        self._variables = [named[name] for name in risk.parameters.names]

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return the risk at a point and its gradient."""
        self.parameters.write(self.model, torch.from_numpy(vector))
        loss = self._loss()
        parts = torch.autograd.grad(loss, self._variables, materialize_grads=True)
        return loss.item(), torch.cat([part.flatten() for part in parts]).numpy()

    def _loss(self) -> Tensor:
        samples = sum(batch.size for batch in self.batches)
        losses = [
            batch.size / samples
            * self.loss_fn(self.model(*batch.args, **batch.kwargs), batch.target)
            for batch in self.batches
        ]  # fmt: skip
        return torch.stack(losses).sum()


def _polished(objective: Objective, at: Tensor, data: Batches, search: Search) -> Risk:
    """Return the risk at the critical point that is near, or where it looked for one."""
    model, loss_fn = objective.model, objective.loss_fn
    objective.parameters.write(model, at)
    steps = search.polish_steps if float(at.abs().max()) <= search.largest else 0
    for _ in range(steps):
        # One at a time: near a critical point each halves the gradient at least.
        done = polish(model, loss_fn, data, max_steps=1, progress=False)
        model = done.model
        if (
            done.gradient_norm <= search.gradient
            or done.gradient_norm > done.initial_gradient_norm / 2
        ):
            break
    return Risk.of(model, loss_fn, data, progress=False)


def _near_critical(objective: Objective, start: Tensor, search: Search) -> list[Tensor]:
    """Return the end of a descent, and iterates whose gradient is locally least."""
    iterates = [start]
    norms = [float(np.linalg.norm(objective(start.numpy())[1]))]

    def note(vector: Vector) -> None:
        iterates.append(torch.from_numpy(vector.copy()))
        norms.append(float(np.linalg.norm(objective(vector)[1])))

    with np.errstate(all="ignore"):
        end = minimize(  # type: ignore[call-overload]
            objective, start.numpy(), jac=True, method="BFGS", callback=note,
            options={"gtol": search.gradient, "maxiter": search.iterations},
        ).x  # fmt: skip
    near = [i for i in _dips(norms) if norms[i] <= search.near][: search.looks]
    return [torch.from_numpy(end), *(iterates[i] for i in near)]


def _dips(norms: list[float]) -> list[int]:
    """Return the start of a sequence and where it is below its neighbours, lowest first."""
    inner = range(1, len(norms) - 1)
    dips = [0, *(i for i in inner if norms[i] < min(norms[i - 1], norms[i + 1]))]
    return sorted(dips, key=norms.__getitem__)


def _rejection(risk: Risk, gradient: float, search: Search) -> Rejection | None:
    """Return why a point is rejected: the first reason there is."""
    if float(risk.point.abs().max()) > search.largest:
        return Rejection.FAR
    if not gradient <= search.gradient:
        return Rejection.NOT_CRITICAL
    if kinks(risk).are_touched:
        return Rejection.AT_KINK
    rows = risk.hessian(progress=False).norm(dim=1)
    if float(rows.min()) <= search.influence * float(rows.max()):
        return Rejection.DEAD
    return None
