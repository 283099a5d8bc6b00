"""From logits to singular values, with the negligible ones set to zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from layerpeel._tolerances import EPS, rank_cutoff
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.factored._data_term import DataTerm, Matrix, Vector
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.spectrum import BlockSpectrum

# Singular values below this share of the largest may be what a descent left of a zero.
# Whether they are is decided by the objective.
_DOUBTFUL = 1e-5


@dataclass(frozen=True, eq=False)
class Decomposition:
    r"""The singular value decomposition of :math:`X = Z \operatorname{diag}(\delta)`.

    Attributes:
        program: The program of the logits.
        left: Left singular vectors, with shape (K, r).
        values: Singular values, descending, with shape (r,).
        right: Right singular vectors, with shape (K, r).
    """

    program: ClassLevel
    left: Matrix
    values: Vector
    right: Matrix

    @classmethod
    def of(cls, program: ClassLevel, logits: Matrix) -> Decomposition:
        """Decompose logits; values at the level of rounding are dropped."""
        left, values, right = np.linalg.svd(logits * program.feature_weights.numpy())
        floor = rank_cutoff(float(values[0]), *logits.shape)
        rank = int((values > floor).sum())
        return cls(program, left[:, :rank], values[:rank], right[:rank].T)

    def with_values(self, values: Vector) -> Decomposition:
        """Return the leading directions, with other singular values."""
        rank = values.size
        left, right = self.left[:, :rank], self.right[:, :rank]
        return Decomposition(self.program, left, values, right)

    def objective(self, bias: Vector) -> float:
        """Return the objective of the least-norm factors."""
        delta = self.program.feature_weights.numpy()
        logits = (self.left * self.values) @ self.right.T / delta
        loss = DataTerm(self.program)(logits + bias[:, None])[0]
        return (
            loss + (self.program.ridge or 0.0) / 2 * float(bias @ bias) + self.penalty
        )

    @property
    def penalty(self) -> float:
        """The penalty; zero within a budget."""
        regulariser = self.program.regulariser
        if regulariser.multiplier is None:
            return 0.0
        layers = regulariser.depth + 1
        energy = float(np.sum(self.values ** (2 / layers)))
        return layers / 2 * regulariser.multiplier * energy

    @property
    def factors(self) -> SpectralFactors:
        """The least-norm factors."""
        spectrum = BlockSpectrum(
            tuple((k,) for k in range(self.program.num_classes)),
            torch.zeros(self.program.num_classes, dtype=torch.float64),
            *(torch.tensor(part) for part in (self.values, self.left, self.right)),
        )
        delta, regulariser = self.program.feature_weights, self.program.regulariser
        return SpectralFactors(spectrum, delta, regulariser.balance, regulariser.depth)


def rounded(decomposition: Decomposition, bias: Vector) -> Decomposition:
    """Return the decomposition without what a descent left of zero singular values."""
    trials = [
        decomposition.with_values(values) for values in _truncations(decomposition)
    ]
    objectives = [trial.objective(bias) for trial in trials]
    # The first within rounding: fewer directions come first.
    reach = min(objectives) + 10 * EPS * abs(min(objectives))
    return next(
        t for t, value in zip(trials, objectives, strict=True) if value <= reach
    )


def _truncations(decomposition: Decomposition) -> Iterator[Vector]:
    """Yield the values without the smallest ones, fewest first, within the budget."""
    values, budget = decomposition.values, decomposition.program.regulariser.budget
    least = int((values > _DOUBTFUL * values.max(initial=0.0)).sum())
    for rank in range(least, values.size + 1):
        kept = values[:rank]
        spent = float(kept.sum())
        if budget is None or spent <= budget:
            yield kept
        # A budget is spent to the last digit, or not spent: both are tried.
        if budget is not None and spent > 0:
            yield kept * (budget / spent)
