r"""The central path of squared-error training, where the classifier is always optimal.

With a least-squares classifier (and its bias), the mean squared error is a function of
the features alone. Under balanced classes it depends on them only through the singular
values :math:`\omega_j` of the signal-to-noise matrix

.. math::
    \Sigma_W^{-1/2} M , \qquad
    \mathcal{L} = \frac{1}{2 C} \sum_{j=1}^{C-1} \frac{1}{1 + \omega_j^2 / C} ,

where the columns of :math:`M` are class means less the global mean, and :math:`\Sigma_W`
is the covariance within classes, averaged over all samples. Neural collapse is
:math:`\omega_j \to \infty`, all of them at the same rate.

References:
    | Neural Collapse Under MSE Loss: Proximity to and Dynamics on the Central Path (Han,
    | Papyan & Donoho, 2021), https://arxiv.org/abs/2106.02073
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import wrightomega
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, one_of, positive
from layerpeel._figures import axes, colour, style
from layerpeel._json import plain
from layerpeel._tolerances import rank_cutoff
from layerpeel.program._inputs import Array, real_tensor
from layerpeel.program.dynamics.gradient_flow import checked_times
from layerpeel.program.limits.convex_root import convex_root

Renormalisation = Literal["tangent", "multiplicative"]


@dataclass(frozen=True, eq=False)
class CentralPath:
    r"""The singular values of the signal-to-noise matrix over time.

    Attributes:
        renormalisation: How features are kept at unit covariance within classes.
        times: The times, with shape :math:`(T,)`.
        singular_values: One row per time, with shape :math:`(T, C - 1)`.
        losses: The mean squared error of the optimal classifier, with shape :math:`(T,)`.
    """

    renormalisation: str
    times: Float64[Tensor, " T"]
    singular_values: Float64[Tensor, "T modes"]
    losses: Float64[Tensor, " T"]

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the singular values over time.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        ax.plot(self.times, self.singular_values, color=colour("predicted"))
        ax.set(xlabel="time", ylabel="signal to noise", yscale="log")
        ax.set_title(f"central path, {self.renormalisation} renormalisation")
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return renormalisation, times, singular values and losses, ready for JSON."""
        return {
            "renormalisation": self.renormalisation,
            "times": plain(self.times),
            "singular_values": plain(self.singular_values),
            "losses": plain(self.losses),
        }


def central_path(
    singular_values: Float[Tensor, " modes"] | Array,
    *,
    num_classes: int,
    samples_per_class: float,
    times: Iterable[SupportsFloat],
    renormalisation: Renormalisation,
) -> CentralPath:
    r"""Return gradient flow along the central path, in closed form.

    Features follow the negative gradient of the least-squares loss and are renormalised to
    unit covariance within classes all the time. Singular vectors do not move, and every
    singular value obeys, apart from the others,

    .. math::
        n C^2 \left( \log \omega + \frac{\omega^2}{C} + \frac{\omega^4}{4 C^2} \right)
        &= t + \text{const} \qquad (\text{tangent}) \\
        n C^2 \left( \log \omega + \frac{\omega^2}{2 C} \right)
        &= t + \text{const} \qquad (\text{multiplicative})

    The two renormalisations are different flows; neither is a detail:

    * ``"tangent"``: the velocity is projected to the tangent space of the features of unit
      covariance. The within-class part of the gradient, a symmetric matrix times the
      features, is orthogonal to it and drops out. In the end
      :math:`\omega \propto t^{1/4}`.
    * ``"multiplicative"``: after every step features are multiplied by
      :math:`\Sigma_W^{-1/2}`. The gradient shrinks the noise, and renormalising turns that
      into signal: :math:`\omega \propto t^{1/2}`.

    References:
        | Neural Collapse Under MSE Loss: Proximity to and Dynamics on the Central Path
        | (Han, Papyan & Donoho, 2021), https://arxiv.org/abs/2106.02073

    Args:
        singular_values: Singular values :math:`\omega_j \geq 0` at time zero, as by
            :func:`signal_to_noise`, with at most :math:`C - 1` entries. Zeros stay zero.
        num_classes: The number of classes :math:`C \geq 2`.
        samples_per_class: The number of samples :math:`n` of every class.
        times: Times :math:`t \geq 0`, with length :math:`T`.
        renormalisation: Which of the two flows.

    Raises:
        ValueError: If a number is out of its range, or there are too many singular
            values.

    Example:
        >>> start = torch.tensor([2.0, 1.0], dtype=torch.float64)
        >>> path = central_path(start, num_classes=3, samples_per_class=10,
        ...                     times=[0, 100, 10_000], renormalisation="tangent")
        >>> path.singular_values.round(decimals=3).tolist()
        [[2.0, 1.0], [2.361, 1.584], [7.593, 7.554]]
    """
    classes = at_least("num_classes", num_classes, 2)
    count = positive("samples_per_class", samples_per_class)
    one_of("renormalisation", renormalisation, ("tangent", "multiplicative"))
    initial = _checked_modes(singular_values, classes)
    clock = checked_times(times)
    # In y = omega^2 / C: both laws are a function of y, up to constants, plus log(y) / 2.
    law = {"tangent": _tangent, "multiplicative": _multiplicative}[renormalisation]
    moving = initial > 0
    squares = initial[moving].square() / classes
    now = squares.log() / 2 + _growth(squares, renormalisation)
    later = now + clock[:, None] / (count * classes**2)
    values = torch.zeros(len(clock), len(initial), dtype=torch.float64)
    values[:, moving] = (law(later) * classes).sqrt()
    losses = least_squares_loss(values, num_classes=classes)
    return CentralPath(renormalisation, clock, values, losses)


def least_squares_loss(
    singular_values: Float[Tensor, "*batch modes"] | Array, *, num_classes: int
) -> Float64[Tensor, "*batch"]:
    r"""Return the mean squared error of the best classifier with a bias.

    .. math::
        \min_{W, b} \frac{1}{2 N} \sum_i \|W h_i + b - e_{y_i}\|^2
        = \frac{1}{2 C} \sum_{j=1}^{C-1} \frac{1}{1 + \omega_j^2 / C} ,

    for balanced classes; singular values left out count as zeros.

    References:
        | Neural Collapse Under MSE Loss: Proximity to and Dynamics on the Central Path
        | (Han, Papyan & Donoho, 2021), https://arxiv.org/abs/2106.02073

    Args:
        singular_values: Of the signal-to-noise matrix, with at most :math:`C - 1` in the
            last dimension.
        num_classes: The number of classes :math:`C \geq 2`.

    Raises:
        ShapeError: If there are more singular values.
        ValueError: If ``num_classes`` is below two.

    Example:
        >>> least_squares_loss(torch.zeros(2, dtype=torch.float64), num_classes=3)
        tensor(0.3333, dtype=torch.float64)
    """
    classes = at_least("num_classes", num_classes, 2)
    values = real_tensor("singular_values", singular_values)
    if values.ndim == 0 or values.shape[-1] >= classes:
        raise ShapeError(
            f"`singular_values` must have at most {classes - 1} in its last dimension, "
            f"one less than classes; got the shape {tuple(values.shape)}."
        )
    unexplained = 1 / (1 + values.square() / classes)
    missing = classes - 1 - values.shape[-1]
    loss: Tensor = (unexplained.sum(dim=-1) + missing) / (2 * classes)
    return loss


def signal_to_noise(
    class_means: Float[Tensor, "C p"] | Array, within: Float[Tensor, "_ _"] | Array
) -> Float64[Tensor, " modes"]:
    r"""Return the singular values of :math:`\Sigma_W^{-1/2} M`, the largest first.

    Args:
        class_means: One class mean per row, with shape :math:`(C, p)`; the global mean is
            subtracted here.
        within: The covariance within classes, averaged over samples, with shape
            :math:`(p, p)`.

    Returns:
        The :math:`\min(C - 1, p)` largest singular values.

    Raises:
        ShapeError: If the shapes do not fit.
        ValueError: If the covariance is singular: signal to noise is then infinite.

    Example:
        >>> means = torch.tensor([[2.0], [-2.0]], dtype=torch.float64)
        >>> signal_to_noise(means, torch.tensor([[4.0]], dtype=torch.float64)).tolist()
        [1.4142135623730951]
    """
    means, covariance = _checked_moments(class_means, within)
    classes, width = means.shape
    variances, vectors = torch.linalg.eigh(covariance)
    if float(variances[0]) <= rank_cutoff(float(variances[-1]), width, width):
        raise ValueError(
            "`within` must be positive definite; got the least eigenvalue "
            f"{float(variances[0]):.3g}. Use more samples than dimensions, or project the "
            "features to fewer dimensions."
        )
    centred = means - means.mean(dim=0)
    whitened = (centred @ vectors) / variances.sqrt()
    values: Tensor = torch.linalg.svdvals(whitened)
    return values[: min(classes - 1, width)]


def _checked_moments(
    class_means: Tensor | Array, within: Tensor | Array
) -> tuple[Float64[Tensor, "C p"], Float64[Tensor, "p p"]]:
    means = real_tensor("class_means", class_means)
    covariance = real_tensor("within", within)
    if means.ndim != 2:
        raise ShapeError(
            f"`class_means` must have shape (C, p); got {tuple(means.shape)}."
        )
    width = means.shape[1]
    if covariance.shape != (width, width):
        raise ShapeError(
            f"`within` must have shape ({width}, {width}), the covariance of the "
            f"features; got {tuple(covariance.shape)}."
        )
    for name, values in (("class_means", means), ("within", covariance)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"`{name}` must be finite; got NaN or infinity.")
    return means, covariance


def _checked_modes(
    singular_values: Tensor | Array, num_classes: int
) -> Float64[Tensor, " modes"]:
    values = real_tensor("singular_values", singular_values)
    if values.ndim != 1:
        raise ShapeError(
            "`singular_values` must have one dimension; got the shape "
            f"{tuple(values.shape)}."
        )
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(
            f"`singular_values` must be finite and >= 0; got {values.tolist()}."
        )
    if len(values) > num_classes - 1:
        raise ValueError(
            f"`singular_values` must be at most {num_classes - 1}, one less than classes; "
            f"got {len(values)}. Centre the class means first."
        )
    return values


def _growth(squares: Tensor, renormalisation: str) -> Tensor:
    if renormalisation == "multiplicative":
        return squares / 2
    return squares + squares.square() / 4


def _multiplicative(law: Tensor) -> Tensor:
    """Return y with log(y) / 2 + y / 2 = law, by Wright's function."""
    return torch.from_numpy(np.asarray(wrightomega(2 * law.numpy())))


def _tangent(law: Tensor) -> Tensor:
    """Return y with log(y) / 2 + y + y^2 / 4 = law; the left side is convex in log(y)."""
    goal = law.numpy()

    def excess(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.exp(x)
        return x / 2 + y + y**2 / 4 - goal, 0.5 + y + y**2 / 2

    # Each term alone, at its largest: y <= e^(2 law), and y^2 / 4 <= law once y >= 1.
    above = np.minimum(2 * goal, np.log(2 + 2 * np.sqrt(np.maximum(goal, 0))))
    return torch.from_numpy(np.exp(convex_root(excess, above)))
