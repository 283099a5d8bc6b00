"""Last layers with known geometry, given as arrays."""

from __future__ import annotations

import torch

from layerpeel.geometry import simplex_etf
from layerpeel.measurement import Measurement, measure_features
from layerpeel.program import PeeledProblem

WIDTH = 16


def predicted_network(
    counts: list[int],
    energy: tuple[float, float],
    noise: float = 0.0,
    **options: object,
) -> Measurement:
    """A network that stands exactly where the peeled program says, plus noise."""
    solution = PeeledProblem(counts, energy=energy).solve()
    return network(
        counts,
        solution.classifiers(WIDTH),
        solution.class_means(WIDTH),
        noise,
        **options,
    )


def balanced_network(
    counts: list[int], noise: float = 0.0, **options: object
) -> Measurement:
    """A network whose classifiers and class means are simplex ETFs."""
    frame = 3 * simplex_etf(len(counts), max(WIDTH, len(counts)))
    return network(counts, frame, frame, noise, **options)


def network(
    counts: list[int],
    classifiers: torch.Tensor,
    means: torch.Tensor,
    noise: float = 0.0,
    **options: object,
) -> Measurement:
    """Features at their class means, spread evenly in ``noise``; no bias.

    Frames fill the first coordinates only, so everything is rotated: no unit is dead.
    """
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    random = torch.Generator().manual_seed(0)
    spread = torch.randn(
        len(labels), means.shape[1], generator=random, dtype=torch.float64
    )
    features = means[labels] + noise * spread
    turn, eval_features = rotation(means.shape[1]), options.pop("eval_features", None)
    if eval_features is not None:
        options["eval_features"] = eval_features @ turn
    return measure_features(
        features @ turn, labels, weight=classifiers @ turn, **options
    )


def rotation(width: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.linalg.qr(
        torch.randn(width, width, generator=random, dtype=torch.float64)
    )[0]
