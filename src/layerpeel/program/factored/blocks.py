r"""Logits in blocks: an upper bound on deep linear networks under cross-entropy.

Partition the classes and let every block ignore the others: within a block the logits
are a frame of its own scale, across blocks they are zero. Then a class of a block of
:math:`m` sees :math:`K - m` logits of zero, whatever the other blocks do: the objective
is a sum over blocks, and the best partition of the classes, sorted by frequency, into
runs is found by dynamic programming. Every block is worth one dimension less than
classes that all repel each other, which a penalty that prefers low rank rewards.

References:
    | The Persistence of Neural Collapse Despite Low-Rank Bias (Garrod & Keating, 2024),
    | https://arxiv.org/abs/2410.23169: low rank is optimal
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from layerpeel.program.class_level import ClassLevel
from layerpeel.program.factored._data_term import Matrix, Vector

# Scales to choose from. Neighbours differ by a tenth, which hardly moves a minimum; the
# scales of the chosen blocks are refined.
SCALES = np.geomspace(0.1, 1000.0, 97)

# Larger blocks than this are not tried, short of all classes: their frames have nearly
# the rank of the whole.
_LARGEST = 12


@dataclass(frozen=True, eq=False)
class Block:
    """Some classes and the frame of their logits.

    Attributes:
        classes: The class indices.
        logits: The logits within the block, with shape (m, m); zero for classes that
            are given up.
        value: What the block adds to the objective.
    """

    classes: tuple[int, ...]
    logits: Matrix
    value: float


def best_blocks(program: ClassLevel) -> tuple[Block, ...]:
    """Return the best partition into blocks, for plain cross-entropy and a penalty.

    Args:
        program: A penalised program. Scales, offsets, margins and smoothing are
            ignored: the blocks are then a starting point and their values no bound.

    References:
        | The Persistence of Neural Collapse Despite Low-Rank Bias (Garrod & Keating,
        | 2024), https://arxiv.org/abs/2410.23169: low rank is optimal
    """
    order = np.argsort(-program.weights.numpy(), kind="stable")
    K = program.num_classes
    family = _Family(program)
    # best[j]: the value of the first j classes in order, and where their last run starts.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, K + 1):
        sizes = [m for m in range(1, end + 1) if m <= _LARGEST or m == K]
        totals = (
            (best[end - m][0] + family.value(order[end - m : end]), end - m)
            for m in sizes
        )
        best.append(min(totals))
    blocks, end = [], K
    while end:
        start = best[end][1]
        blocks.append(family.refined(order[start:end]))
        end = start
    return tuple(reversed(blocks))


def logits_of_blocks(num_classes: int, blocks: tuple[Block, ...]) -> Matrix:
    """Return the logits of all classes."""
    logits = np.zeros((num_classes, num_classes))
    for block in blocks:
        logits[np.ix_(block.classes, block.classes)] = block.logits
    return logits


class _Family:
    """Blocks of one program, each evaluated once."""

    def __init__(self, program: ClassLevel) -> None:
        assert program.regulariser.multiplier is not None
        self.num_classes = program.num_classes
        self.weights = program.weights.numpy()
        self.delta = program.feature_weights.numpy()
        self.power = 2 / (program.regulariser.depth + 1)
        self.factor = program.regulariser.multiplier / self.power
        self.known: dict[bytes, float] = {}

    def value(self, classes: np.ndarray) -> float:
        """Return the least value of a block over frames and scales, nearly."""
        key = np.concatenate([self.weights[classes], self.delta[classes]]).tobytes()
        if key not in self.known:
            costs = [
                self._costs(f, classes, SCALES).min() for f in _frames(len(classes))
            ]
            self.known[key] = float(min([*costs, self._given_up(classes)]))
        return self.known[key]

    def refined(self, classes: np.ndarray) -> Block:
        """Return the best block of some classes."""
        chosen = tuple(int(k) for k in classes)
        nothing = np.zeros((len(classes),) * 2)
        options = [Block(chosen, nothing, self._given_up(classes))]
        for frame in _frames(len(classes)):
            near = int(np.argmin(self._costs(frame, classes, SCALES)))
            low, high = SCALES[max(near - 1, 0)], SCALES[min(near + 1, SCALES.size - 1)]
            found = minimize_scalar(
                lambda scale, frame=frame: self._costs(
                    frame, classes, np.array([scale])
                )[0],
                bounds=(low, high),
                method="bounded",
                options={"xatol": 1e-10},
            )
            options.append(Block(chosen, frame * found.x, float(found.fun)))
        return min(options, key=lambda block: block.value)

    def _costs(self, frame: Matrix, classes: np.ndarray, scales: Vector) -> Vector:
        """Return the weighted losses and the penalty of a block, for each scale."""
        own = np.diagonal(frame)
        against = frame - own
        np.fill_diagonal(against, -np.inf)
        odds = np.exp(scales[:, None, None] * against).sum(axis=1)
        odds = odds + (self.num_classes - len(frame)) * np.exp(-np.outer(scales, own))
        singular = np.linalg.svd(frame * self.delta[classes], compute_uv=False)
        energy = np.sum(singular[singular > 1e-12 * singular[0]] ** self.power)
        losses = np.log1p(odds) @ self.weights[classes]
        costs: Vector = losses + self.factor * energy * scales**self.power
        return costs

    def _given_up(self, classes: np.ndarray) -> float:
        return float(self.weights[classes].sum()) * math.log(self.num_classes)


def _frames(size: int) -> Iterator[Matrix]:
    """Yield the simplex and, from four classes on, the regular polygon."""
    if size > 1:
        yield np.eye(size) - 1 / size
    if size > 3:
        angle = 2 * np.pi * np.arange(size) / size
        yield np.cos(angle[:, None] - angle)
