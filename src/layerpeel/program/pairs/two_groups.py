r"""Two groups of equally frequent classes: four scalars instead of a matrix.

Classes of equal count are interchangeable, and the loss is convex in the logits, so an
optimal logit matrix of :math:`K_A` majority and :math:`K_B` minority classes is

.. math::
    Z = \alpha \left(I_A - \tfrac{1}{K_A} J_A\right)
        + \beta \left(I_B - \tfrac{1}{K_B} J_B\right) + \rho \, \ell r^\top ,

with one pair of singular vectors between the groups, since the columns of :math:`Z`
sum to zero:

.. math::
    \ell = \left(\sqrt{\tfrac{K_B}{K}} , -\sqrt{\tfrac{K_A}{K}}\right) , \qquad
    r = (\cos\theta, -\sin\theta)

in units of the normalised group indicators :math:`1_g / \sqrt{K_g}`.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
    | model and its convex form
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from layerpeel.program.spectrum import BlockSpectrum


@dataclass(frozen=True)
class TwoGroups:
    r"""A Layer-Peeled Model of two groups of equally frequent classes.

    Attributes:
        majority: The number of majority classes :math:`K_A`.
        minority: The number of minority classes :math:`K_B`.
        log_ratio: :math:`\log(n_A / n_B) > 0`.
        tau: The nuclear-norm budget :math:`K \sqrt{E_W E_H}`.
    """

    majority: int
    minority: int
    log_ratio: float
    tau: float

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.majority + self.minority

    def log_frequencies(self) -> tuple[float, float]:
        """Return the logarithms of the frequencies of one class of each group."""
        rare = math.exp(-self.log_ratio)
        log_pi_A = -math.log(self.majority + self.minority * rare)
        return log_pi_A, log_pi_A - self.log_ratio


@dataclass(frozen=True)
class TwoGroupLogits:
    """The scalars of group-symmetric logits.

    Attributes:
        program: The program they solve.
        alpha: Spread within the majority.
        beta: Spread within the minority; exactly zero when it has collapsed.
        rho: Singular value between the groups; exactly zero when both the minority
            classifiers and features have vanished.
        cos: Cosine of the angle of the right singular vector.
        sin: Sine of it.
        evaluations: How often the scalars were evaluated to find them.
    """

    program: TwoGroups
    alpha: float
    beta: float
    rho: float
    cos: float
    sin: float
    evaluations: int = 0

    @property
    def scalars(self) -> tuple[float, float, float, float, float]:
        """All of them: alpha, beta, rho, cos and sin."""
        return self.alpha, self.beta, self.rho, self.cos, self.sin

    @property
    def nuclear_norm(self) -> float:
        """The nuclear norm of the logits."""
        spread = (self.program.majority - 1) * self.alpha
        return spread + (self.program.minority - 1) * self.beta + self.rho

    @property
    def minority_cosine(self) -> float:
        """The cosine between two minority classifiers; NaN where they vanish."""
        K_A, K_B = self.program.majority, self.program.minority
        shared = self.rho * K_A / (K_B * (K_A + K_B))
        square = self.beta * (1 - 1 / K_B) + shared
        return (shared - self.beta / K_B) / square if square > 0 else math.nan

    def scaled_to(self, tau: float, evaluations: int) -> TwoGroupLogits:
        """Spend what a root search left of the budget, a few ulps, evenly."""
        # An ulp below the vanishing threshold, rounding can make rho negative.
        kept = replace(self, rho=max(self.rho, 0.0), evaluations=evaluations)
        scale = tau / kept.nuclear_norm
        return replace(
            kept,
            alpha=kept.alpha * scale,
            beta=kept.beta * scale,
            rho=kept.rho * scale,
        )

    def spectrum(
        self, majority: tuple[int, ...], minority: tuple[int, ...]
    ) -> BlockSpectrum:
        """Return the logit matrix, for the given class indices."""
        K_A, K_B = len(majority), len(minority)
        between = [self.rho] if self.rho > 0 else []
        left = [[math.sqrt(K_B / (K_A + K_B))], [-math.sqrt(K_A / (K_A + K_B))]]
        right = [[self.cos], [-self.sin]]
        return BlockSpectrum(
            (majority, minority),
            torch.tensor([self.alpha, self.beta], dtype=torch.float64),
            torch.tensor(between, dtype=torch.float64),
            torch.tensor(left, dtype=torch.float64)[:, : len(between)],
            torch.tensor(right, dtype=torch.float64)[:, : len(between)],
        )
