r"""Exact global minima of deep linear networks with one output and weight decay.

For the end-to-end predictor :math:`v`, the least decay of the layers that multiply to it
is :math:`(D + 1) \, c \, \|v\|^{2/(D+1)}` with :math:`c = (\prod_i \gamma_i)^{1/(D+1)}`, so
a network of :math:`D` hidden layers minimises

.. math::
    \mathbb{E} (v^\top x - y)^2 + (D + 1) \, c \, \|v\|^{2 / (D + 1)} ,

and at a minimum other than zero
:math:`v = (A + c \, \|v\|^{-2D/(D+1)} I)^{-1} b`: one equation in the norm.

References:
    | Exact Solutions of a Deep Linear Network (Ziyin, Li & Meng, 2022),
    | https://arxiv.org/abs/2202.04777
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, positive
from layerpeel._figures import axes, colour, line_at, style
from layerpeel._json import plain
from layerpeel._tolerances import CERTIFIED_GAP, EPS
from layerpeel.program._inputs import Array, numbers, real_tensor
from layerpeel.program.dynamics.norm_program import NormProgram
from layerpeel.program.solution import Certificate, Status

# Points of the drawn objective.
_DRAWN = 400


@dataclass(frozen=True, eq=False)
class DeepLinear:
    r"""A global minimum of a deep linear network.

    Attributes:
        status: ``CLOSED_FORM`` with at most one hidden layer, where the program in
            :math:`v` is convex; ``CERTIFIED`` by branch and bound with more.
        certificate: The objective less :math:`\mathbb{E} y^2`, which is never above zero,
            and a lower bound on it.
        predictor: The end-to-end predictor :math:`v`, with shape :math:`(p,)`: the mean
            prediction is :math:`v^\top x`.
        layers: Weight matrices that reproduce it, first layer first, each with shape
            (outputs, inputs). They are of rank one; rotations of hidden layers are as
            good without noise.
        shrinkage: The multiplier :math:`c \, \|v\|^{-2D/(D+1)}`; infinite for the zero
            predictor.
    """

    status: Status
    certificate: Certificate
    predictor: Float64[Tensor, " p"]
    layers: tuple[Float64[Tensor, "_ _"], ...] = field(repr=False)
    shrinkage: float
    _program: NormProgram = field(repr=False)

    @property
    def objective(self) -> float:
        r"""The loss and all decays, less :math:`\mathbb{E} y^2`."""
        return self.certificate.objective

    @property
    def collapsed(self) -> bool:
        """Whether the best network predicts zero."""
        return math.isinf(self.shrinkage)

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the least objective over all predictors of a norm, by the norm.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        norm = float(self.predictor.norm())
        norms, values = _profile(self._program)
        ax.plot(norms, values, color=colour("measured"))
        line_at(ax, norm, "global minimum", vertical=True)
        ax.set(xlabel="norm of the predictor", ylabel="objective less that of zero")
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return status, objective and predictor, ready for JSON."""
        return {
            "status": self.status.name,
            "objective": self.objective,
            "gap": plain(self.certificate.gap),
            "predictor": plain(self.predictor),
            "shrinkage": plain(self.shrinkage),
        }


def deep_linear(
    covariance: Float[Tensor, "_ _"] | Array,
    correlation: Float[Tensor, " p"] | Array,
    *,
    weight_decay: Sequence[float],
    widths: Sequence[int] | None = None,
    noise: Sequence[float] | None = None,
) -> DeepLinear:
    r"""Return a global minimum of a deep linear network with one output.

    .. math::
        \min_{W_1, \ldots, W_{D+1}} \; \mathbb{E} \left( W_{D+1} \,
        \mathcal{E}_D W_D \cdots \mathcal{E}_1 W_1 x - y \right)^2
        + \sum_i \gamma_i \|W_i\|_F^2 ,

    without a half anywhere. :math:`\mathcal{E}_l` multiplies the :math:`d_l` units of
    hidden layer :math:`l` by independent noise of mean one and variance
    :math:`\sigma_l^2`. Dropout that drops with probability :math:`q` and rescales has
    :math:`\sigma^2 = q / (1 - q)`.

    Noise acts on the covariance only: the minimum is that without noise for

    .. math::
        A \prod_l \left(1 + \frac{\sigma_l^2}{d_l}\right) .

    *Proof.* With :math:`z` the inputs of the last hidden layer's noise and :math:`u` the
    last weights, :math:`\mathbb{E} (\sum_i u_i \varepsilon_i z_i)^2 =
    \mathbb{E} (\sum_i u_i z_i)^2 + \sigma^2 \sum_i \mathbb{E} (u_i z_i)^2`, which is at
    least :math:`(1 + \sigma^2 / d) \, \mathbb{E} (\sum_i u_i z_i)^2` by the inequality of
    Cauchy and Schwarz; :math:`u^\top z` is the output of a network with one hidden layer
    less. The least decay of a given :math:`v` is a bound of its own. Layers of rank one
    that treat the units of every hidden layer alike attain both.

    **When zero wins.** Without a hidden layer, never. With one, exactly if
    :math:`\|b\| \leq c`: the minimum vanishes continuously. With :math:`D \geq 2`, zero is
    a local minimum at any decay, so training from a small start can end there, and the
    global minimum jumps to it; for :math:`A = a I`, exactly from

    .. math::
        \|b\| \leq \frac{a D}{D - 1} \left( \frac{(D - 1) \, c}{a} \right)^{(D+1)/(2D)}

    on. With eigenvalues of :math:`A` that are far apart, several nonzero norms can be local
    minima, too: objectives are compared, by branch and bound.

    References:
        | Exact Solutions of a Deep Linear Network (Ziyin, Li & Meng, 2022),
        | https://arxiv.org/abs/2202.04777

    Args:
        covariance: :math:`A = \mathbb{E} x x^\top`, with shape :math:`(p, p)`.
        correlation: :math:`b = \mathbb{E} x y`, with shape :math:`(p,)`.
        weight_decay: :math:`\gamma_1, \ldots, \gamma_{D+1} > 0`, first layer first.
        widths: The units :math:`d_1, \ldots, d_D` of the hidden layers; one each when
            omitted, which without noise is as good as any.
        noise: The variances :math:`\sigma_1^2, \ldots, \sigma_D^2 \geq 0`; none when
            omitted.

    Returns:
        The minimum.

    Raises:
        ShapeError: If the shapes do not fit.
        ValueError: If the covariance is not symmetric and positive semidefinite, the
            correlation is not in its range (no data has that), a number is out of its
            range, there are not as many widths or noises as hidden layers, or noise is
            given without widths.

    Example:
        >>> A, b = torch.eye(2, dtype=torch.float64), torch.tensor([3.0, 4.0]).double()
        >>> ridge = deep_linear(A, b, weight_decay=(0.25,))
        >>> ridge.predictor.tolist()
        [2.4, 3.2]
        >>> one = deep_linear(A, b, weight_decay=(1.0, 1.0))  # 5 shrinks to 4
        >>> one.predictor.round(decimals=9).tolist(), one.status.name
        ([2.4, 3.2], 'CLOSED_FORM')
        >>> deep_linear(A, b, weight_decay=(6.0,) * 2).collapsed
        True
    """
    decays = _checked_decays(weight_decay)
    hidden = len(decays) - 1
    units, factor = _checked_noise(widths, noise, hidden)
    variances, basis, coordinates = _spectral(
        real_tensor("covariance", covariance), real_tensor("correlation", correlation)
    )
    log_decay = math.fsum(map(math.log, decays)) / (hidden + 1)
    program = NormProgram(variances * factor, coordinates, math.exp(log_decay), hidden)
    found = program.solve()
    predictor = torch.zeros(len(coordinates), dtype=torch.float64)
    if math.isfinite(found.kappa):
        at = program.predictors(np.array([found.kappa]))[0]
        predictor = torch.from_numpy(basis @ at)
    certificate = Certificate(found.objective, found.lower_bound)
    status = Status.CLOSED_FORM
    if hidden > 1:
        status = Status.of_gap(certificate.gap, CERTIFIED_GAP)
    layers = _layers(predictor, decays, units)
    return DeepLinear(status, certificate, predictor, layers, found.kappa, program)


def _checked_decays(weight_decay: Sequence[float]) -> tuple[float, ...]:
    decays = numbers("weight_decay", weight_decay, each="layer", example="[1e-3, 1e-3]")
    if not decays:
        raise ValueError(
            "`weight_decay` must have the decay of at least one layer; got none."
        )
    return tuple(
        positive(f"weight_decay[{i}]", decay) for i, decay in enumerate(decays)
    )


def _checked_noise(
    widths: Sequence[int] | None, noise: Sequence[float] | None, hidden: int
) -> tuple[tuple[int, ...], float]:
    """Return the units of the hidden layers, and the factor that noise amounts to."""
    if noise is not None and widths is None:
        raise ValueError(
            "`widths` must be given with `noise`, which averages out over the units of a "
            "layer; got none. Give the number of units of every hidden layer."
        )
    units = (1,) * hidden if widths is None else tuple(widths)
    variances = (0.0,) * hidden if noise is None else tuple(map(float, noise))
    for name, values in (("widths", units), ("noise", variances)):
        if len(values) != hidden:
            raise ValueError(
                f"`{name}` must have one entry for each of the {hidden} hidden layers, "
                f"one less than `weight_decay`; got {len(values)}."
            )
    for layer, (width, variance) in enumerate(zip(units, variances, strict=True)):
        at_least(f"widths[{layer}]", width, 1)
        if not (math.isfinite(variance) and variance >= 0):
            raise ValueError(
                f"`noise[{layer}]` must be a finite variance >= 0; got {variance!r}."
            )
    ratios = (1 + v / d for v, d in zip(variances, units, strict=True))
    return units, math.prod(ratios)


def _spectral(
    covariance: Tensor, correlation: Tensor
) -> tuple[
    Float64[np.ndarray, " p"], Float64[np.ndarray, "p p"], Float64[np.ndarray, " p"]
]:
    """Return eigenvalues and eigenvectors of A, and b in their basis."""
    if correlation.ndim != 1 or covariance.shape != (len(correlation),) * 2:
        raise ShapeError(
            "`covariance` must have shape (p, p) and `correlation` (p,); got "
            f"{tuple(covariance.shape)} and {tuple(correlation.shape)}."
        )
    A, b = covariance.numpy(), correlation.numpy()
    if not (np.isfinite(A).all() and np.isfinite(b).all()):
        raise ValueError("`covariance` and `correlation` must be finite.")
    rounding = 8 * len(b) * EPS * float(abs(A).max(initial=0.0))
    if (abs(A - A.T) > rounding).any():
        raise ValueError(
            "`covariance` must be symmetric. Symmetrise it, if it is close."
        )
    variances, basis = np.linalg.eigh((A + A.T) / 2)
    if variances[0] < -rounding:
        raise ValueError(
            "`covariance` must be positive semidefinite; got the eigenvalue "
            f"{variances[0]:.3g}. It is E[x x'], the mean of outer products."
        )
    coordinates = basis.T @ b
    absent = variances <= rounding
    # What rounding leaves of b along absent directions is nothing: Cauchy and Schwarz.
    stray = float(np.linalg.norm(coordinates[absent]))
    if stray > math.sqrt(EPS) * float(np.linalg.norm(b)):
        raise ValueError(
            "`correlation` must lie in the range of `covariance`, as that of any data "
            f"does; a part of norm {stray:.3g} does not. Compute both from the same data."
        )
    return np.maximum(variances, 0.0), basis, np.where(absent, 0.0, coordinates)


def _layers(
    predictor: Float64[Tensor, " p"], decays: tuple[float, ...], units: tuple[int, ...]
) -> tuple[Float64[Tensor, "_ _"], ...]:
    """Return rank-one layers of least decay, alike in all units of a hidden layer."""
    norm = float(predictor.norm())
    direction = predictor / norm if norm > 0 else predictor
    ones = [torch.full((d,), d**-0.5, dtype=torch.float64) for d in units]
    outputs = [*ones, torch.ones(1, dtype=torch.float64)]
    # Every layer has the same decay gamma_i |W_i|^2 = c |v|^(2 / (D + 1)).
    shares = [math.log(decay) for decay in decays]
    mean = math.fsum(shares) / len(shares)
    root = norm ** (1 / len(decays))
    sizes = [root * math.exp((mean - share) / 2) for share in shares]
    return tuple(
        size * torch.outer(left, right)
        for size, left, right in zip(sizes, outputs, [direction, *ones], strict=True)
    )


def _profile(
    program: NormProgram,
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return norms up to the unregularised one, and the least objective at each."""
    scale = float(program.variances.max(initial=0.0)) or 1.0
    kappas = scale * np.logspace(4, -8, _DRAWN)
    norms = program.norms(kappas)
    return norms, program.fits(kappas) + program.penalties(norms)
