"""What holds the logits small: a budget or a penalty on their singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerpeel._checks import positive
from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy


@dataclass(frozen=True)
class Regulariser:
    r"""A nuclear-norm ball, a nuclear-norm penalty, or a Schatten quasi-norm.

    Of :math:`X = Z \operatorname{diag}(\delta)`, the class-mean logits with weighted
    columns. With a budget, :math:`\|X\|_* \leq \tau`. With a multiplier and :math:`M`
    layers, the penalty

    .. math::
        \frac{M + 1}{2} \, c \sum_i \sigma_i(X)^{2 / (M + 1)} ,

    which for one layer is :math:`c \|X\|_*`. Either is the least that factors
    :math:`X = W G`, :math:`G = \bar H \operatorname{diag}(\delta)`, must spend.

    Attributes:
        budget: :math:`\tau`, or ``None`` with a multiplier.
        multiplier: :math:`c`, or ``None`` with a budget.
        depth: The number of layers :math:`M`.
        balance: The squared scale :math:`s` of the factors
            :math:`W = \sqrt{s} \, U S^{M/(M+1)}` and
            :math:`G = V S^{1/(M+1)} / \sqrt{s}`.
    """

    budget: float | None
    multiplier: float | None
    depth: int
    balance: float

    @classmethod
    def of_energy(cls, energy: Energy, class_counts: Sequence[float]) -> Regulariser:
        """Return the nuclear-norm ball of the Layer-Peeled Model.

        Raises:
            ValueError: If the budget overflows.
        """
        K = len(class_counts)
        if energy.per == "class":
            return cls(energy.nuclear_norm(K), None, 1, energy.balance)
        share = math.sqrt(
            sum(count / K for count in class_counts)
        )  # N E_H is shared by N samples
        budget = positive("sqrt(K * N * E_W * E_H)", energy.nuclear_norm(K) * share)
        return cls(budget, None, 1, energy.balance / share)

    @classmethod
    def of_decay(cls, decay: Decay) -> Regulariser:
        """Return the penalty of the unconstrained-features model."""
        multiplier = decay.multiplier
        return cls(None, multiplier, decay.depth, decay.features / multiplier)
