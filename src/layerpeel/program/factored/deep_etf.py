r"""The simplex ETF of a deep linear network under cross-entropy: a local solution.

On balanced classes and logits :math:`a (I - J/K)` the penalised cross-entropy of
:math:`M` linear layers is a function of the scale :math:`a` alone,

.. math::
    \varphi(a) = \log(1 + (K - 1) e^{-a})
    + \frac{M + 1}{2} \kappa (K - 1) a^{2/(M+1)} , \qquad
    \kappa = \Big(n \lambda_H \prod_j \lambda_j\Big)^{1/(M+1)} ,

whose stationary points solve :math:`\kappa = a^{(M-1)/(M+1)} / (e^a + K - 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw, xlogy

from layerpeel._checks import at_least, positive
from layerpeel._tolerances import EPS
from layerpeel.program.decay import Decay


@dataclass(frozen=True)
class DeepETF:
    r"""The simplex ETF among the solutions of a deep linear network.

    A local optimum at best: :func:`deep_etf` says when, with references.

    Attributes:
        num_classes: The number of classes :math:`K`.
        depth: The number of layers :math:`M`.
        load: :math:`\kappa`.
        unit: :math:`\kappa` for a geometric mean of one of all decays.

    Example:
        >>> etf = DeepETF(num_classes=5, depth=2, load=2e-3)
        >>> round(etf.objective, 6), etf.is_local_optimum
        (0.047511, True)
    """

    num_classes: int
    depth: int
    load: float
    unit: float = 1.0

    @property
    def scale(self) -> float:
        r"""The scale :math:`a` of the logits; zero where no such frame is stationary."""
        if self.load >= _load(self, self._turn):
            return 0.0
        # a - log(a) >= a / 2, so the load is below ours from here on.
        end = self._turn + 1 + 2 * max(0.0, -math.log(self.load))
        return _root(
            lambda a: _log_load(self, a) - math.log(self.load), self._turn, end
        )

    @property
    def objective(self) -> float:
        """The objective of the frame; that of zero where there is no frame."""
        return _objective(self, self.scale, self.load)

    @property
    def is_local_optimum(self) -> bool:
        """Whether the frame exists and no small change lowers the objective."""
        return self.scale > 0 and _curvature(self, self.scale) >= 0

    @property
    def beats_zero(self) -> bool:
        r"""Whether the objective is below :math:`\log K`, that of zero factors."""
        return self.objective < math.log(self.num_classes)

    @property
    def vanishing_decay(self) -> float:
        """The geometric mean of the decays from which on no frame is stationary."""
        return _load(self, self._turn) / self.unit

    @property
    def stability_decay(self) -> float:
        """The same mean from which on the frame is no local optimum."""
        start, end = self._turn, self.num_classes + 3.0
        if _curvature(self, start) >= 0:
            return self.vanishing_decay
        scale = _root(lambda a: _curvature(self, a), start, end)
        return _load(self, scale) / self.unit

    @property
    def breakeven_decay(self) -> float:
        """The same mean from which on zero factors are as good as the frame."""
        if self.depth == 1:
            return self.vanishing_decay

        def excess(a: float) -> float:
            return _objective(self, a, _load(self, a)) - math.log(self.num_classes)

        scale = _root(excess, self._turn, self._turn + 50 * (self.depth + 1))
        return _load(self, scale) / self.unit

    @property
    def _turn(self) -> float:
        """The smallest scale of a local minimum along the frame: the largest load."""
        gap = _gap(self)
        branch = lambertw(gap * (self.num_classes - 1) * math.exp(-gap))
        return gap + float(branch.real)


def deep_etf(
    num_classes: int,
    samples_per_class: float,
    weight_decay: Decay | Sequence[float],
) -> DeepETF:
    r"""Return the simplex ETF of a deep linear network under cross-entropy.

    **It is not the global optimum in general.** Dang et al. (2023) state for
    cross-entropy that global optima of deep linear networks collapse to a simplex ETF.
    Garrod & Keating (2024) show that for many classes or layers they do not: the
    penalty on the product of several layers is a Schatten quasi-norm, which prefers low
    rank. With one sample per class and all decays 2e-3, two layers and :math:`K = 5`
    classes have a point of rank 3 below it (0.047126 against 0.047511), :math:`K = 6`
    three pairs of opposite classes (0.055685 against 0.059386), and three layers a
    square of four classes (0.031728 against 0.034437). With one layer the simplex ETF
    is global.

    **It is a local optimum**, up to equality, if and only if
    :math:`a \geq \frac{M - 1}{M + 1} K`, for :math:`K \geq 4`. Of the perturbations
    :math:`E` of the logits, antisymmetric ones raise the objective. Along symmetric
    ones the loss curves up by :math:`\frac{r}{K} \|E\|^2`, with :math:`r` the softmax
    probability of a wrong class, and more where the diagonal changes; the penalty
    curves down by :math:`\frac{M-1}{M+1} \frac{r}{a} \|E\|^2`. The other directions are
    safe: one that adds to the rank has infinite slope. (Three classes have no symmetric
    :math:`E` of zero diagonal and zero sums; their condition is
    :math:`(1 + y - 3 \frac{M-1}{M+1} / a)(1 + y + 3/a) \geq y^2` with
    :math:`y = 1 - 3 r`, and two classes only need the frame to exist.)

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
        | The Persistence of Neural Collapse Despite Low-Rank Bias (Garrod & Keating,
        | 2024), https://arxiv.org/abs/2410.23169

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        samples_per_class: The number of samples :math:`n` of each class.
        weight_decay: The decays of all layers and, last, of the features.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> etf = deep_etf(10, 100, weight_decay=(5e-4, 5e-4, 5e-4, 5e-4))
        >>> round(etf.scale, 4), round(etf.objective, 4)
        (7.4484, 0.0829)
        >>> etf.is_local_optimum, etf.scale >= (3 - 1) / (3 + 1) * 10
        (True, True)
        >>> [f"{etf.stability_decay:.5f}", f"{etf.breakeven_decay:.5f}"]
        ['0.00449', '0.01960']
    """
    at_least("num_classes", num_classes, 2)
    count = positive("samples_per_class", samples_per_class)
    decay = Decay.of(weight_decay)
    unit = count ** (1 / (decay.depth + 1)) if decay.per == "sample" else 1.0
    return DeepETF(num_classes, decay.depth, decay.multiplier * unit, unit)


def _gap(etf: DeepETF) -> float:
    """Return how far the power of the quasi-norm is below one."""
    return (etf.depth - 1) / (etf.depth + 1)


def _log_load(etf: DeepETF, scale: float) -> float:
    """Return the logarithm of the load for which a scale is stationary."""
    others = math.log(etf.num_classes - 1)
    return float(xlogy(_gap(etf), scale)) - float(np.logaddexp(scale, others))


def _load(etf: DeepETF, scale: float) -> float:
    return math.exp(_log_load(etf, scale))


def _objective(etf: DeepETF, scale: float, load: float) -> float:
    power, others = 1 - _gap(etf), etf.num_classes - 1
    penalty: float = load / power * others * scale**power
    return math.log1p(others * math.exp(-scale)) + penalty


def _curvature(etf: DeepETF, scale: float) -> float:
    """Return a number with the sign of the least curvature at a stationary scale."""
    K, gap = etf.num_classes, _gap(etf)
    if K > 3:
        return scale - gap * K
    fit = 1 - K * math.exp(-np.logaddexp(scale, math.log(K - 1)))
    symmetric, shifted = scale * (1 + fit) - gap * K, scale * (1 + fit) + K
    return symmetric * shifted - (scale * fit) ** 2 if K == 3 else symmetric


def _root(function: Callable[[float], float], start: float, end: float) -> float:
    """Return a root, as exactly as floats allow."""
    return float(brentq(function, start, end, xtol=1e-15, rtol=4 * EPS, maxiter=500))
