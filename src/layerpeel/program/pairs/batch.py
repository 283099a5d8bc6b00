"""Group-symmetric logits of many two-group problems at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from layerpeel.program.pairs.two_groups import TwoGroupLogits

Cells = Float64[np.ndarray, "*cells"]


@dataclass(frozen=True, eq=False)
class TwoGroupBatch:
    r"""The scalars of :class:`TwoGroupLogits`, as arrays of one shape.

    Attributes:
        majority: The number of majority classes :math:`K_A`.
        minority: The number of minority classes :math:`K_B`.
        log_ratio: :math:`\log(n_A / n_B) \geq 0`.
        tau: The nuclear-norm budgets.
        alpha: Spread within the majority.
        beta: Spread within the minority; exactly zero where it has collapsed.
        rho: Singular value between the groups; exactly zero where the minority has
            vanished.
        cos: Cosine of the angle of the right singular vector.
        sin: Sine of it.
    """

    majority: int
    minority: int
    log_ratio: Cells
    tau: Cells
    alpha: Cells
    beta: Cells
    rho: Cells
    cos: Cells
    sin: Cells

    @classmethod
    def of(cls, logits: TwoGroupLogits) -> TwoGroupBatch:
        """Return a batch of one."""
        program = logits.program
        values = (program.log_ratio, program.tau, *logits.scalars)
        return cls(
            program.majority,
            program.minority,
            *(np.array([value], dtype=np.float64) for value in values),
        )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.majority + self.minority

    @property
    def nuclear_norm(self) -> Cells:
        """The nuclear norms."""
        spread = (self.majority - 1) * self.alpha
        return np.asarray(spread + (self.minority - 1) * self.beta + self.rho)

    @property
    def log_frequencies(self) -> tuple[Cells, Cells]:
        """The logarithms of the frequencies of one class of each group."""
        rare = np.exp(-self.log_ratio)
        log_pi_A = -np.log(self.majority + self.minority * rare)
        return log_pi_A, log_pi_A - self.log_ratio

    @property
    def margins(self) -> tuple[Cells, Cells]:
        """Own logit above those of the other group, for a class of each group."""
        K_A, K_B, K = self.majority, self.minority, self.num_classes
        u, v = self.rho * self.cos, self.rho * self.sin
        return (
            self.alpha * (1 - 1 / K_A) + u / K_A * math.sqrt(K / K_B),
            self.beta * (1 - 1 / K_B) + v / K_B * math.sqrt(K / K_A),
        )

    @property
    def squared_norms(self) -> tuple[Cells, Cells]:
        """Squared norm of a classifier of each group, where their mean is one."""
        K_A, K_B, K = self.majority, self.minority, self.num_classes
        scale = K / self.tau
        return (
            (self.alpha * (1 - 1 / K_A) + self.rho * K_B / (K_A * K)) * scale,
            (self.beta * (1 - 1 / K_B) + self.rho * K_A / (K_B * K)) * scale,
        )

    @property
    def minority_cosine(self) -> Cells:
        """The cosine between two minority classifiers; NaN where they vanish."""
        K_A, K_B, K = self.majority, self.minority, self.num_classes
        shared = self.rho * K_A / (K_B * K)
        square = self.beta * (1 - 1 / K_B) + shared
        inner = np.where(square > 0, shared - self.beta / K_B, np.nan)
        return np.asarray(inner / np.where(square > 0, square, 1.0))
