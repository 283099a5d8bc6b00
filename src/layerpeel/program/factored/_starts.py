"""Where a factored solve starts from.

With several layers the penalty is a quasi-norm: a direction that starts at zero stays
there, and zero itself is a local optimum. So the starts sweep over ranks, and the later
ones stay near the rank of the best point so far.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layerpeel.program.class_level import SoftmaxLoss
from layerpeel.program.factored._data_term import Matrix
from layerpeel.program.factored._objective import FactorObjective, Point
from layerpeel.program.factored._points import point_of_logits, point_of_pair

# Sizes of the random logits: a one-hot label has size one, a well fitted softmax ten.
_SIZES = (4.0, 1.0, 12.0)

# Singular values below this share of the largest are no directions of a point that
# was not polished.
_NEGLIGIBLE = 1e-6


class Starts:
    """Starting points of one program, reproducible from a seed."""

    def __init__(self, objective: FactorObjective, seed: int) -> None:
        self.objective = objective
        self.program = objective.program
        self.random = np.random.default_rng(seed)
        self.largest = min(objective.width, self.program.num_classes)

    def structured(self) -> Iterator[Point]:
        """Yield all zeros, where norms are penalised, and the frame of the labels."""
        K = self.program.num_classes
        if self.program.regulariser.budget is None:
            yield self._point(np.zeros((K, K)))
        yield self._point(self._centred(np.eye(K)) * _SIZES[0])

    def sweep(self, count: int) -> Iterator[Point]:
        """Yield random points, from full rank to rank one where ranks matter."""
        for index, share in enumerate(np.linspace(1, 0, count)):
            deep = self.program.regulariser.depth > 1
            rank = 1 + round((self.largest - 1) * share) if deep else self.largest
            yield self._scattered(rank, index)

    def near(self, best: Point, index: int) -> Point:
        """Return a point near the best one in rank, or short of one direction of it."""
        if self.program.regulariser.depth == 1 or self.program.nonnegative:
            return self._scattered(self.largest, index)
        logits = self.objective.logits(best) * self.program.feature_weights.numpy()
        left, values, right = np.linalg.svd(logits)
        rank = int((values > _NEGLIGIBLE * values[0]).sum())
        if index % 2 or rank == 0:
            nearby = int(self.random.integers(rank, rank + 3))
            return self._scattered(min(max(nearby, 1), self.largest), index)
        values[self.random.integers(rank)] = 0.0
        short = (left * values) @ right / self.program.feature_weights.numpy()
        return point_of_logits(self.objective, short, best.bias)

    def blocks(self, index: int) -> Point:
        """Return a random partition into blocks that ignore each other.

        Where classes differ in more than their weights, which of them belong together is
        a matter of trying.
        """
        K = self.program.num_classes
        member = self.random.integers(self.random.integers(1, K + 1), size=K)
        alike = np.equal.outer(member, member).astype(np.float64)
        logits = np.eye(K) - alike / alike.sum(axis=1)
        return self._point(logits * _SIZES[index % len(_SIZES)])

    def _scattered(self, rank: int, index: int) -> Point:
        """Return random factors of a rank."""
        K, size = self.program.num_classes, _SIZES[index % len(_SIZES)]
        rows = self._centred(self.random.standard_normal((K, rank)))
        if self.program.nonnegative:
            features = np.abs(self.random.standard_normal((rank, K)))
            # As ReLU leaves them: about half of the entries are zero, at the start.
            features *= self.random.random((rank, K)) < 0.5
            return self._pair(rows, features * (size / rank**0.5))
        right = np.linalg.qr(self.random.standard_normal((K, rank)))[0]
        return self._point(rows @ right.T * (size * (K / rank) ** 0.5))

    def _point(self, logits: Matrix) -> Point:
        if not self.program.nonnegative:
            return point_of_logits(self.objective, logits)
        # Features along the axes are nonnegative, whatever the classifiers.
        return self._pair(logits, np.eye(len(logits)))

    def _pair(self, rows: Matrix, features: Matrix) -> Point:
        """Return a point whose classifiers and weighted features have equal norms."""
        weighted = features * self.program.feature_weights.numpy()
        norms = np.linalg.norm(rows), np.linalg.norm(weighted)
        if not all(norms):
            return point_of_pair(self.objective, 0 * rows, 0 * weighted)
        scale = (norms[1] / norms[0]) ** 0.5
        return point_of_pair(self.objective, rows * scale, weighted / scale)

    def _centred(self, rows: Matrix) -> Matrix:
        """Return rows whose mean is zero, where the loss is blind to a common shift."""
        softmax = isinstance(self.program.loss, SoftmaxLoss)
        return rows - rows.mean(axis=0) if softmax else rows
