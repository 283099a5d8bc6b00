r"""A classifier fixed as a simplex equiangular tight frame: only the features learn.

With classifiers of squared norm :math:`E_W` in a simplex frame, features of class
:math:`k` have, by Jensen's inequality over the other classes,

.. math::
    \ell(h, k) \geq f(\|h\|) , \qquad f(\rho) = \log\left(1 + (K - 1) e^{-\kappa \rho}
    \right) , \qquad \kappa = \frac{K}{K - 1} \sqrt{E_W} ,

with equality exactly where :math:`h` points along its own classifier. So directions form
the frame for any counts, and what is left is convex in the norms :math:`\rho`: equal
within a class, and between classes a matter of the constraint.

References:
    | Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable
    | Classifier at the End of Deep Neural Network? (Yang et al., 2022),
    | https://arxiv.org/abs/2203.09081: a bound on each feature, and dot regression
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq
from torch import Tensor

from layerpeel._checks import one_of, positive
from layerpeel._figures import axes, colour, style
from layerpeel._json import plain
from layerpeel.geometry import Geometry
from layerpeel.program.counts import checked_counts
from layerpeel.program.energy import Energy
from layerpeel.program.limits.convex_root import convex_root
from layerpeel.program.solution import Certificate, Status

# Below this logarithm, log(1 + x) is x to the last bit.
_LOG_TINY = -40.0


@dataclass(frozen=True, eq=False)
class FixedFrame:
    r"""Optimal features under a fixed simplex classifier.

    Attributes:
        status: ``CLOSED_FORM``: a formula or the root of a scalar equation.
        certificate: The mean cross-entropy, with the penalty where there is one, and a
            lower bound from the tangents of the convex program in the norms.
        classifier_norm: The norm of every classifier.
        feature_norms: The norm of every feature of each class, with shape :math:`(K,)`.
        class_counts: The counts, with shape :math:`(K,)`.
    """

    status: Status
    certificate: Certificate
    classifier_norm: float
    feature_norms: Float64[Tensor, " K"]
    class_counts: Float64[Tensor, " K"] = field(repr=False)

    @property
    def objective(self) -> float:
        """The mean cross-entropy over all samples, and the penalty if there is one."""
        return self.certificate.objective

    @property
    def geometry(self) -> Geometry:
        """The Gram matrices of classifiers and class means, and the logits."""
        K, rho = len(self.feature_norms), self.feature_norms
        frame = (K * torch.eye(K, dtype=torch.float64) - 1) / (K - 1)
        features = frame * torch.outer(rho, rho)
        logits = frame * rho * self.classifier_norm
        return Geometry(frame * self.classifier_norm**2, features, logits)

    def dot_regression(self, target: float) -> float:
        r"""Return the mean of the loss :math:`\frac{1}{2 e} (w_k^\top h - e)^2`.

        It is zero for a bound on each feature and the target :math:`e = \sqrt{E_W E_H}`
        of Yang et al. (2022): cross-entropy and dot regression then share their optimum.

        Args:
            target: The inner product :math:`e > 0`.

        Raises:
            ValueError: If the target is not finite and above zero.
        """
        positive("target", target)
        miss = self.classifier_norm * self.feature_norms - target
        return float((_shares(self.class_counts) * miss.square()).sum() / (2 * target))

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the norm of the features against the number of samples, by class.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        order = self.class_counts.argsort()
        counts, norms = self.class_counts[order], self.feature_norms[order]
        ax.plot(counts, norms, marker="o", color=colour("predicted"))
        ax.set(
            xscale="log", xlabel="samples of the class", ylabel="norm of its features"
        )
        ax.set_ylim(bottom=0)
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return status, certificate and norms, ready for JSON."""
        return {
            "status": self.status.name,
            "objective": self.objective,
            "gap": plain(self.certificate.gap),
            "classifier_norm": self.classifier_norm,
            "feature_norms": plain(self.feature_norms),
        }


def fixed_frame(
    class_counts: Iterable[SupportsFloat],
    *,
    energy: Energy | Sequence[float] | None = None,
    budget: Literal["each", "mean"] = "each",
    classifiers: float | None = None,
    feature_decay: float | None = None,
    per: Literal["sample", "class"] = "sample",
) -> FixedFrame:
    r"""Return the optimal features under a classifier fixed as a simplex frame.

    The loss is the mean cross-entropy without bias. Either give ``energy`` and ``budget``,
    or ``classifiers`` and ``feature_decay``:

    * ``budget="each"``: every :math:`\|h_{k,i}\|^2 \leq E_H`. All norms are
      :math:`\sqrt{E_H}`.
    * ``budget="mean"``: :math:`\frac1K \sum_k \frac{1}{n_k} \sum_i \|h_{k,i}\|^2 \leq
      E_H`, as in the Layer-Peeled Model. Frequent classes get the longer features, until
      the energy is large.
    * ``feature_decay``, per sample: :math:`\frac{\lambda_H}{2} \sum_{k,i}
      \|h_{k,i}\|^2`. All norms are equal, for any counts.
    * ``feature_decay``, per class: :math:`\frac{\lambda_H}{2} \sum_k \frac{1}{n_k}
      \sum_i \|h_{k,i}\|^2`, the penalised twin of ``"mean"``.

    With :math:`g_k = \kappa \rho_k`, norms that are not bounded one by one solve

    .. math::
        \frac{n_k}{N} \, \frac{\kappa (K - 1)}{e^{g_k} + K - 1} = \nu_k \rho_k ,

    where :math:`\nu_k` is :math:`\lambda_H n_k` per sample, :math:`\lambda_H` per class,
    and for the mean the one number that spends the budget.

    References:
        | Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable
        | Classifier at the End of Deep Neural Network? (Yang et al., 2022),
        | https://arxiv.org/abs/2203.09081: a bound on each feature

    Args:
        class_counts: Positive counts, with length :math:`K`.
        energy: The squared norm :math:`E_W` of every classifier, and the budget
            :math:`E_H` of the features.
        budget: What the budget bounds.
        classifiers: The squared norm :math:`E_W` of every classifier, with decay.
        feature_decay: The decay :math:`\lambda_H`.
        per: Whether the decay is counted per sample or per class.

    Returns:
        The features.

    Raises:
        ValueError: If a number is not finite and above zero, or it is not exactly one of
            ``energy``, and ``classifiers`` with ``feature_decay``, that is given, or a
            mean budget is per sample.

    Example:
        >>> each = fixed_frame([500, 5, 5], energy=(1.0, 9.0))
        >>> each.feature_norms.tolist(), each.dot_regression(3.0)
        ([3.0, 3.0, 3.0], 0.0)
        >>> mean = fixed_frame([500, 5, 5], energy=(1.0, 9.0), budget="mean")
        >>> mean.feature_norms.round(decimals=3).tolist()
        [4.458, 1.888, 1.888]
    """
    counts = torch.tensor(checked_counts(class_counts), dtype=torch.float64)
    one_of("budget", budget, ("each", "mean"))
    one_of("per", per, ("sample", "class"))
    if energy is not None and classifiers is None and feature_decay is None:
        bounds = _bounds(energy, budget)
        program = _Norms(counts, math.sqrt(bounds.classifiers))
        solve = _under_bound if budget == "each" else _under_budget
        norms, certificate = solve(program, bounds.features)
    elif energy is None and classifiers is not None and feature_decay is not None:
        program = _Norms(counts, math.sqrt(positive("classifiers", classifiers)))
        decay = positive("feature_decay", feature_decay)
        penalty = decay * (counts if per == "sample" else torch.ones_like(counts))
        norms, certificate = _under_decay(program, penalty)
    else:
        raise ValueError(
            "Either `energy`, or both `classifiers` and `feature_decay`, must be given; "
            f"got energy={energy!r}, classifiers={classifiers!r} and "
            f"feature_decay={feature_decay!r}. Leave out the others."
        )
    norm = program.classifier_norm
    return FixedFrame(Status.CLOSED_FORM, certificate, norm, norms, counts)


def _bounds(energy: Energy | Sequence[float], budget: str) -> Energy:
    """Return the energies, of which only a bound on each norm knows no classes."""
    if budget == "each":
        return Energy.of(energy)
    return Energy.per_class(energy, 'the frame with `budget="mean"`')


@dataclass(frozen=True, eq=False)
class _Norms:
    """The convex program in the feature norms."""

    counts: Float64[Tensor, " K"]
    classifier_norm: float

    @property
    def shares(self) -> Float64[Tensor, " K"]:
        return _shares(self.counts)

    @property
    def rate(self) -> float:
        """The gap between logits per unit of norm."""
        K = len(self.counts)
        return self.classifier_norm * K / (K - 1)

    def losses(self, norms: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
        """Return the loss of every class."""
        return torch.log1p((len(norms) - 1) * torch.exp(-self.rate * norms))

    def forces(self, norms: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
        """Return how fast the weighted loss of every class falls with its norm."""
        odds = (len(norms) - 1) * torch.exp(-self.rate * norms)
        return self.shares * self.rate * odds / (1 + odds)

    def norms(self, log_penalty: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
        r"""Return the norms where force and penalty :math:`\nu_k \rho_k` are equal."""
        rest = math.log(len(self.counts) - 1)
        log_share = self.shares.log() + 2 * math.log(self.rate) - log_penalty
        goal = (log_share + rest).numpy()

        # With y = log g: y + log(e^g + K - 1) - goal, which is convex in y.
        def excess(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            gap = np.exp(y)
            total = np.logaddexp(gap, rest)
            return y + total - goal, 1 + gap * np.exp(gap - total)

        # g <= log(1 + e^goal), since (1 + x) log(1 + x) >= x.
        above = np.logaddexp(0, np.maximum(goal, _LOG_TINY))
        start = np.where(goal < _LOG_TINY, goal, np.log(above))
        return torch.from_numpy(np.exp(convex_root(excess, start))) / self.rate

    def log_penalty_at(self, norm: float) -> Float64[Tensor, " K"]:
        """Return the log of the penalty that would give every class this norm."""
        gap = self.rate * norm
        rest = math.log(len(self.counts) - 1)
        log_force = self.shares.log() + 2 * math.log(self.rate) + rest
        return log_force - math.log(gap) - float(np.logaddexp(gap, rest))


def _under_bound(
    program: _Norms, budget: float
) -> tuple[Float64[Tensor, " K"], Certificate]:
    """Losses fall with the norm, so every norm is the largest: the bound is attained."""
    norms = torch.full_like(program.counts, math.sqrt(budget))
    objective = float(program.shares @ program.losses(norms))
    return norms, Certificate(objective, objective)


def _under_budget(
    program: _Norms, budget: float
) -> tuple[Float64[Tensor, " K"], Certificate]:
    """Spend a mean budget: one multiplier for all classes."""
    K = len(program.counts)
    total = K * budget
    brackets = program.log_penalty_at(math.sqrt(budget))

    def excess(log_penalty: float) -> float:
        norms = program.norms(torch.full_like(brackets, log_penalty))
        return math.log(float(norms.square().sum()) / total)

    # At the least of these penalties no norm is below the mean, at the largest none above.
    low, high = float(brackets.min()), float(brackets.max())
    penalty = low
    if excess(low) > 0 > excess(high):
        penalty = float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))
    norms = program.norms(torch.full_like(brackets, penalty))
    norms = norms * math.sqrt(total / float(norms.square().sum()))
    objective = float(program.shares @ program.losses(norms))
    forces = program.forces(norms)
    # Tangents of the losses, minimised over the ball of the budget.
    slack = float(forces @ norms) - math.sqrt(float(forces.square().sum()) * total)
    return norms, Certificate(objective, objective + min(slack, 0.0))


def _under_decay(
    program: _Norms, penalty: Float64[Tensor, " K"]
) -> tuple[Float64[Tensor, " K"], Certificate]:
    """Solve one scalar equation per class."""
    norms = program.norms(penalty.log())
    objective = program.shares @ program.losses(norms) + penalty @ norms.square() / 2
    # Tangents of the losses, minimised with the penalty: the sum of (force - nu rho)^2.
    miss = program.forces(norms) - penalty * norms
    slack = float((miss.square() / (2 * penalty)).sum())
    return norms, Certificate(float(objective), float(objective) - slack)


def _shares(counts: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
    return counts / counts.sum()
