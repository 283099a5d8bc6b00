"""Cross-entropy with several linear layers: the best found, beside the simplex ETF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from layerpeel._tolerances import CERTIFIED_GAP, SAME_OBJECTIVE
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.factored._data_term import Matrix
from layerpeel.program.factored._rounding import Decomposition
from layerpeel.program.factored.blocks import SCALES, best_blocks, logits_of_blocks
from layerpeel.program.factored.factored import solve_factored
from layerpeel.program.solution import Solution


def solve_deep_cross_entropy(
    program: ClassLevel,
    gap_tol: float = CERTIFIED_GAP,
    *,
    starts: int = 24,
    seed: int = 0,
    max_steps: int = 5000,
    progress: bool | None = None,
) -> Solution:
    r"""Return the best of the simplex ETF, the blocks and a seeded multi-start.

    No closed form is known, and no certificate: with several layers the penalty is a
    Schatten quasi-norm, and the program is not convex in the logits. Dang et al. (2023)
    state that the global optimum is a simplex ETF for balanced classes; Garrod &
    Keating (2024) show that it is not, for many classes or layers, and
    :func:`deep_etf` gives counterexamples. The candidates compared by objective are

    * the simplex ETF of the best scale, a local optimum of balanced classes;
    * the best partition into blocks that ignore each other, simplices and regular
      polygons (:mod:`layerpeel.program.factored.blocks`);
    * random points of all ranks, and points near the best of them.

    Class counts, class weights, scales, offsets, margins and smoothing may be any;
    frames and blocks are then mere starting points.

    References:
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437
        | The Persistence of Neural Collapse Despite Low-Rank Bias (Garrod & Keating,
        | 2024), https://arxiv.org/abs/2410.23169

    Args:
        program: A penalised program of cross-entropy and at least two layers.
        gap_tol: The relative gap up to which the solution would call itself certified.
        starts: The number of random starts; more follow while few of them agree.
        seed: The seed of the random starts.
        max_steps: The limit on the steps of each descent.
        progress: Whether to show a progress bar; where someone can see it, if omitted.

    Returns:
        The best found: ``STATIONARY``, or ``MAX_STEPS``. Beside those of
        :func:`solve_factored` the stats are ``etf_objective``, the least objective of
        logits :math:`a (I - J/K)` without a bias; ``block_objective``, that of the best
        blocks; ``best_found``; and ``etf_is_best`` and ``blocks_are_best``, one where
        nothing better was found.

    Raises:
        ValueError: If the program is of another kind.
    """
    _check(program)
    K = program.num_classes
    frame = _scaled_frame(program)
    blocks = logits_of_blocks(K, best_blocks(program))
    found = solve_factored(
        program,
        gap_tol,
        starts=starts,
        seed=seed,
        warm=[
            Decomposition.of(program, logits).factors
            for logits in _candidates(frame, blocks, seed)
        ],
        max_steps=max_steps,
        progress=progress,
    )
    no_bias = np.zeros(K)
    etf, paired = (
        Decomposition.of(program, logits).objective(no_bias)
        for logits in (frame, blocks)
    )
    reach = found.objective * (1 + SAME_OBJECTIVE)
    stats = {
        "etf_objective": etf,
        "block_objective": paired,
        "best_found": found.objective,
        "etf_is_best": float(etf <= reach),
        "blocks_are_best": float(paired <= reach),
    }
    return replace(found, stats={**found.stats, **stats})


def _check(program: ClassLevel) -> None:
    depth, multiplier = program.regulariser.depth, program.regulariser.multiplier
    softmax = isinstance(program.loss, SoftmaxLoss)
    if depth < 2 or multiplier is None or not softmax or program.nonnegative:
        raise ValueError(
            "`program` must be of cross-entropy, of free features, and penalised over at "
            f"least two layers; got {type(program.loss).__name__}, nonnegative="
            f"{program.nonnegative}, {program.regulariser}. Call `solve_factored`."
        )


def _candidates(frame: Matrix, blocks: Matrix, seed: int) -> Iterator[Matrix]:
    """Yield the frame, the blocks, and blocks that are free to find one another.

    Blocks that ignore each other may be a saddle point.
    """
    yield frame
    yield blocks
    random = np.random.default_rng(seed)
    for size in (0.01, 0.1):
        noise = random.standard_normal(blocks.shape)
        yield blocks + size * np.abs(blocks).max() * (noise - noise.mean(axis=0))


def _scaled_frame(program: ClassLevel) -> Matrix:
    """Return the simplex ETF of the least objective, or zero."""
    K = program.num_classes
    frame, no_bias = np.eye(K) - 1 / K, np.zeros(K)

    def cost(scale: float) -> float:
        return Decomposition.of(program, frame * scale).objective(no_bias)

    near = int(np.argmin([cost(scale) for scale in SCALES]))
    best = minimize_scalar(
        cost,
        bounds=(SCALES[max(near - 1, 0)], SCALES[min(near + 1, SCALES.size - 1)]),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return frame * best.x if best.fun < cost(0.0) else 0.0 * frame
