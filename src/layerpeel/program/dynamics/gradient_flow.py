r"""Gradient flow of the cross-entropy without any decay: norms grow, directions settle.

Classifiers :math:`W` and features :math:`H` are both free. Once every sample is classified
rightly, gradient flow drives the loss to zero and the norms to infinity, and its direction
to a stationary point of the largest normalised margin.

References:
    | An Unconstrained Layer-Peeled Perspective on Neural Collapse (Ji et al., 2021),
    | https://arxiv.org/abs/2110.02796
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expi
from torch import Tensor

from layerpeel._checks import at_least, positive
from layerpeel._figures import axes, colour, style
from layerpeel._json import plain
from layerpeel.program._inputs import numbers
from layerpeel.program.limits.convex_root import convex_root
from layerpeel.program.limits.seli import seli


def gradient_flow_margin(class_counts: Iterable[SupportsFloat]) -> float:
    r"""Return the largest normalised margin, which gradient flow approaches.

    .. math::
        \max \frac{\min_{k, i, j \neq k} (w_k - w_j)^\top h_{k,i}}{\|W\|_F^2 + \|H\|_F^2}
        = \frac{1}{2 \, \|(I - J/K) D^{1/2}\|_*} , \qquad D = \operatorname{diag}(n_k) .

    The least norm for a margin of one is twice the nuclear norm of the simplex-encoded
    labels: see :func:`~layerpeel.program.seli` for the geometry. Balanced, it is
    :math:`\frac{1}{2 (K - 1) \sqrt{n}}`, at a simplex equiangular tight frame.

    That gradient flow ends in a *stationary* direction of this margin is a theorem; that
    it finds the largest one is what is seen from random starts. The approach is
    logarithmic in time.

    References:
        | An Unconstrained Layer-Peeled Perspective on Neural Collapse (Ji et al., 2021),
        | https://arxiv.org/abs/2110.02796

    Args:
        class_counts: Positive counts, with length :math:`K`.

    Raises:
        ValueError: If there are fewer than two counts, or one is not finite and above
            zero.

    Example:
        >>> round(gradient_flow_margin([4, 4, 4]), 9)  # 1 / (2 * 2 * sqrt(4))
        0.125
        >>> round(gradient_flow_margin([6, 2, 1]), 5)
        0.14964
    """
    return 0.5 / seli(class_counts).nuclear_norm


@dataclass(frozen=True, eq=False)
class BalancedFlow:
    r"""Gradient flow of the cross-entropy that starts aligned with a simplex frame.

    Attributes:
        times: The times, with shape :math:`(T,)`.
        gaps: The gap :math:`a` between own and other logits at them, the same shape.
        losses: The mean cross-entropy at them, the same shape.
    """

    times: Float64[Tensor, " T"]
    gaps: Float64[Tensor, " T"]
    losses: Float64[Tensor, " T"]

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the gap between logits over time.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        ax.plot(self.times, self.gaps, color=colour("predicted"))
        ax.set(xlabel="time", ylabel="gap between logits")
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return times, gaps and losses, ready for JSON."""
        return {
            "times": plain(self.times),
            "gaps": plain(self.gaps),
            "losses": plain(self.losses),
        }


def balanced_flow(
    num_classes: int,
    count: float,
    *,
    start: float,
    times: Iterable[SupportsFloat],
) -> BalancedFlow:
    r"""Return gradient flow of balanced classes along the simplex frame, in closed form.

    Logits :math:`Z = a (I - J/K)` with balanced, aligned factors
    (:math:`\|W\|_F^2 = \|H\|_F^2`, :math:`h_{k,i} = w_k / \sqrt{n}`) stay of this form
    under gradient flow of the mean cross-entropy, and their gap obeys

    .. math::
        \dot a = \frac{2 a}{\sqrt{n} \, (e^a + K - 1)} , \qquad
        \operatorname{Ei}(a) + (K - 1) \log a = \frac{2 t}{\sqrt{n}} + \text{const}

    with the exponential integral :math:`\operatorname{Ei}`. So :math:`a` grows
    exponentially at first, and like :math:`\log t` in the end, while the normalised margin
    is constant. Other starts approach this set only as :math:`t \to \infty`.

    References:
        | An Unconstrained Layer-Peeled Perspective on Neural Collapse (Ji et al., 2021),
        | https://arxiv.org/abs/2110.02796: the flow, and its limit. The formula in time
        | follows by integrating the flow on the aligned set.

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        count: The number of samples :math:`n` of each class.
        start: The gap :math:`a > 0` at time zero.
        times: Times :math:`t \geq 0`, with length :math:`T`.

    Raises:
        ValueError: If a number is out of its range, or so large that the gap or the
            time cannot be told from infinity: a start above about 709.

    Example:
        >>> flow = balanced_flow(3, 4, start=0.01, times=[0, 10, 100, 1000])
        >>> flow.gaps.round(decimals=3).tolist()
        [0.01, 0.257, 5.958, 8.937]
    """
    at_least("num_classes", num_classes, 2)
    positive("start", start)
    clock = checked_times(times)
    rate = 2 / math.sqrt(positive("count", count))
    with np.errstate(over="ignore"):
        goal = expi(start) + (num_classes - 1) * math.log(start) + rate * clock.numpy()
    if not np.isfinite(goal).all():
        raise ValueError(
            "`start` and `times` must be such that Ei(start) + 2 t / sqrt(count) is a "
            f"float; got start={start!r} and times up to {float(clock.max()):g}. A gap "
            "above 700 does not grow in any time that matters."
        )

    def excess(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = np.exp(y)
        return expi(gap) + (num_classes - 1) * y - goal, np.exp(gap) + num_classes - 1

    # At a = 2 + log(1 + c) + 2 log(1 + log(1 + c)), Ei(a) > e^a / a > c. The gap grows.
    log = np.log1p(np.maximum(goal, 0))
    above = np.maximum(2 + log + 2 * np.log1p(log), start)
    gaps = torch.from_numpy(np.exp(convex_root(excess, np.log(above))))
    losses = torch.log1p((num_classes - 1) * torch.exp(-gaps))
    return BalancedFlow(clock, gaps, losses)


def checked_times(times: Iterable[SupportsFloat]) -> Float64[Tensor, " T"]:
    """Return times as a tensor.

    Raises:
        ValueError: If there is none, or one is negative or not finite.
    """
    given = numbers("times", times, each="point", example="[0, 10, 100]")
    clock = torch.tensor(given, dtype=torch.float64)
    if not len(clock) or not bool((torch.isfinite(clock) & (clock >= 0)).all()):
        raise ValueError(
            "`times` must be at least one finite number >= 0, counted from the start; "
            f"got {clock.tolist()}."
        )
    return clock
