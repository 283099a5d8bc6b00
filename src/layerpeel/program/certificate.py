r"""A lower bound on the layer-peeled cross-entropy, evaluated at any logits.

The Layer-Peeled Model is the convex program

.. math::
    \min_Z \; \sum_k \pi_k \, \ell(z_k, k) \quad \text{s.t.} \quad \|Z\|_* \leq \tau ,

over the logits :math:`z_k` of the class means, with :math:`\pi_k = n_k / N`. Weak
duality bounds its optimum from below, for any :math:`Q` whose columns are
probabilities:

.. math::
    \sum_k \pi_k \mathrm{Ent}(q_k) - \tau \, \| (Q - I) \operatorname{diag}(\pi) \|_2 .

Here :math:`Q = c P + (1 - c) I`, with :math:`P` the softmax of the logits and the best
:math:`c \in [0, 1]`. At the optimum :math:`c = 1` and the bound is tight.

Layout: group-symmetric matrices as ``(G, G)`` arrays, entry ``[h, g]`` for the classes
of group ``h`` in the column of a class of group ``g``; on the diagonal, the *other*
classes of the same group. Everything is in units of the objective :math:`f`, which can
be far below the smallest float64.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | convex form
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq
from scipy.special import xlog1py

from layerpeel._tolerances import EPS
from layerpeel.program.solution import Certificate
from layerpeel.program.spectrum import BlockSpectrum


def certify(
    spectrum: BlockSpectrum, group_counts: Sequence[float], tau: float
) -> tuple[Certificate, float]:
    r"""Evaluate the objective and the lower bound at group-symmetric logits.

    The cost depends on the number of groups only.

    Args:
        spectrum: The logits, of nuclear norm at most ``tau``.
        group_counts: The count of each class, once per group, with length :math:`G`.
        tau: The budget :math:`\tau = K \sqrt{E_W E_H}`.

    Returns:
        The certificate, and the logarithm of the objective, which is finite where the
        objective underflows.
    """
    columns = _Columns.of(spectrum, group_counts)
    bound = columns.lower_bound(tau)
    objective = math.exp(columns.log_objective)
    # Rounding can push the bound past the objective by an ulp.
    gap = max(0.0, 1 - bound)
    certificate = Certificate(objective, objective * (1 - gap), scaled_gap=gap)
    return certificate, columns.log_objective


@dataclass(frozen=True)
class _Columns:
    """The softmax columns of group-symmetric logits, in units of the objective.

    Attributes:
        sizes: Classes per group, shape ``(G,)``.
        margins: Own logit minus the others', shape ``(G, G)``.
        losses: Loss of a class of each group, shape ``(G,)``.
        log_objective: Logarithm of the mean loss.
        shares: Probability on all classes of group ``h``, weighted by the frequency of
            one class of group ``g`` and divided by the objective, shape ``(G, G)``.
    """

    sizes: Float64[np.ndarray, " G"]
    margins: Float64[np.ndarray, "G G"]
    losses: Float64[np.ndarray, " G"]
    log_objective: float
    shares: Float64[np.ndarray, "G G"]

    @classmethod
    def of(cls, spectrum: BlockSpectrum, group_counts: Sequence[float]) -> _Columns:
        sizes = spectrum.sizes.numpy()
        log_counts = np.log(np.asarray(group_counts, dtype=np.float64))
        log_weights = log_counts - _logsumexp(log_counts + np.log(sizes))
        margins = _margins(spectrum)
        log_odds = _log_multiplicities(sizes) - margins
        log_ratio = np.logaddexp.reduce(log_odds, axis=0)  # others against own class
        losses = np.logaddexp(0, log_ratio)
        # log(log(1 + e^x)) = x where e^x is below half an ulp of 1.
        log_losses = np.where(
            log_ratio < math.log(EPS / 2),
            log_ratio,
            np.log(np.maximum(losses, EPS / 4)),
        )
        log_objective = float(_logsumexp(log_weights + np.log(sizes) + log_losses))
        shares = np.exp(log_odds - losses + log_weights - log_objective)
        return cls(sizes, margins, losses, log_objective, shares)

    def lower_bound(self, tau: float) -> float:
        """Return the best lower bound over the mixing weight, in units of f."""
        slope = self._inner() - tau * self._spectral_norm()
        mixing = self._best_mixing(slope)
        mixed = -mixing * np.expm1(-self.losses)  # probability off the own class
        # The own entry adds -(1 - x) log(1 - x) to the entropy: x times a factor that
        # is 1 to within rounding for small x.
        factor = np.where(
            mixed > EPS, -xlog1py(1 - mixed, -mixed) / np.maximum(mixed, EPS), 1.0
        )
        off = self.shares.sum(axis=0)
        entropy = self.sizes @ (off * (factor - math.log(mixing) + self.losses))
        return float(mixing * (slope + entropy))

    def _best_mixing(self, slope: float) -> float:
        """Return c where the derivative of the bound, decreasing in c, is zero."""
        off = self.shares.sum(axis=0)
        probability = -np.expm1(-self.losses)

        def derivative(log_c: float) -> float:
            own = np.log1p(-np.minimum(math.exp(log_c) * probability, 1 - EPS))
            return slope + float(self.sizes @ (off * (self.losses + own - log_c)))

        # The improvement over c = 1 is of the order of the gap squared.
        if derivative(0.0) > -math.sqrt(EPS):
            return 1.0
        lowest = -(abs(slope) + 1) / float(self.sizes @ off)
        return max(math.exp(brentq(derivative, lowest, 0.0)), 1e-300)

    def _inner(self) -> float:
        """Return minus the inner product of gradient and logits."""
        return float(self.sizes @ (self.shares * self.margins).sum(axis=0))

    def _spectral_norm(self) -> float:
        """Return the spectral norm of the gradient (P - I) diag(pi)."""
        off = self.shares.sum(axis=0)
        same = np.diag(self.shares)
        several = self.sizes > 1
        spread = off + same / np.where(several, self.sizes - 1, 1)
        root = np.sqrt(self.sizes)
        coupling = self.shares * root[None, :] / root[:, None]
        np.fill_diagonal(coupling, same - off)
        return float(max(np.linalg.norm(coupling, 2), *(spread * several)))


def _margins(spectrum: BlockSpectrum) -> Float64[np.ndarray, "G G"]:
    """Return own logit minus the others', exactly the spread within a group."""
    sizes, within = spectrum.sizes.numpy(), spectrum.within.numpy()
    root = np.sqrt(sizes)
    between = spectrum.coupling.numpy() / np.outer(root, root)
    own = within * (1 - 1 / sizes) + np.diag(between)
    margins: Float64[np.ndarray, "G G"] = own[None, :] - between
    np.fill_diagonal(margins, within)
    return margins


def _log_multiplicities(sizes: Float64[np.ndarray, " G"]) -> Float64[np.ndarray, "G G"]:
    """Return the log of how many classes of group h a column of group g has besides."""
    counts = np.repeat(sizes[:, None], len(sizes), axis=1) - np.eye(len(sizes))
    return np.where(counts > 0, np.log(np.maximum(counts, 1)), -np.inf)


def _logsumexp(values: Float64[np.ndarray, " n"]) -> float:
    return float(np.logaddexp.reduce(values))
