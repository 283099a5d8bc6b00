"""Critical points of a small network from many starts, as levels of the loss."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import at_least, listed
from layerpeel._files import make_directory
from layerpeel._progress import track
from layerpeel.landscape import LandscapeWarning, Parameters, classify_point
from layerpeel.landscape.reduction import LossFunction
from layerpeel.studies.loss_levels.files import kept_search
from layerpeel.studies.loss_levels.levels import CriticalLevels, Level, clusters
from layerpeel.studies.loss_levels.search import Found, Search

Build = Callable[[int], nn.Module]


def critical_points(
    build: Build,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    seeds: Sequence[int] = range(20),
    search: Search | None = None,
    gap: float = 1e-6,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> CriticalLevels:
    r"""Find critical points of a small network from many starts, and group them by loss.

    From every seed the risk is minimised in float64 over all data; the end, and iterates
    at which the gradient is locally least, are polished by Newton steps. A point is
    accepted if its gradient norm is at most ``search.gradient``, 1e-10 by default, and
    it is neither on a kink, nor far out, nor has a parameter that the risk does not
    notice; how many were rejected is said, by reason. A level is what remains at one
    loss: neighbours in order of size are in one level if their relative gap is at most
    ``gap``. Each level is represented by the point with the smallest gradient, which
    :func:`~layerpeel.landscape.classify_point` judges.

    The search finds what it passes by: levels may be missing, saddles above all.

    References:
        | Embedding Principle of Loss Landscape of Deep Neural Networks (Zhang et al.,
        | 2021), https://arxiv.org/abs/2105.14573: critical points of narrow networks
        | Critical Point-Finding Methods Reveal Gradient-Flat Regions of Deep Network
        | Losses (Frye et al., 2020), https://arxiv.org/abs/2003.10397: why points that
        | do not converge are rejected

    Args:
        build: Makes an untrained network from a seed; the global generator is seeded
            with it too, and put back.
        loss_fn: Takes outputs and targets, returns a scalar, the mean over samples.
        data: Batches ``(input, target)``; read once.
        seeds: The seeds.
        search: How to look, and what to accept.
        gap: The relative gap between levels.
        folder: Where the points of each seed are kept, so that a search that was killed
            goes on; made if it is missing. Nowhere when omitted.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Returns:
        The levels, highest loss first.

    Raises:
        ValueError: If there is no seed or one twice, ``gap`` is no share, or model, loss
            and data define no risk; see :meth:`layerpeel.landscape.Risk.of`.
        FileError: If a file is damaged, or is of another network, data or search.
        OSError: If the folder cannot be written to.

    Example:
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> levels = critical_points(
        ...     lambda seed: nn.Linear(1, 1), nn.functional.mse_loss, [(x, x**2)], seeds=[0]
        ... )
        >>> levels
        CriticalLevels(0.1337; 1 of 1 points)
        >>> levels[0].kind.name, levels[0].inertia.signs
        ('LOCAL_MINIMUM', (0, 0, 2))
    """
    numbers = _distinct(seeds)
    if not 0 < gap < 1:
        raise ValueError(f"`gap` must be a share between 0 and 1; got {gap}.")
    place = None if folder is None else make_directory(folder)
    batches, how = list(data), search or Search()
    found = {
        seed: kept_search(
            _path(place, seed), seeded(build, seed), loss_fn, batches, how
        )
        for seed in track(numbers, "Searching critical points", show=progress)
    }
    points = _Points.of(found)
    model = seeded(build, numbers[0])
    levels = [points.level(model, c, loss_fn, batches) for c in points.clusters(gap)]
    return CriticalLevels(tuple(levels), points.tried, points.rejected, gap)


def seeded(build: Build, seed: int) -> nn.Module:
    """Return the network of a seed, and put the global generator of the CPU back.

    Raises:
        TypeError: If it is no module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build(seed)
    if isinstance(model, nn.Module):
        return model
    raise TypeError(
        f"`build` must return a torch.nn.Module; got {type(model).__name__}. Return the "
        "network."
    )


class _Points:
    """The accepted points of all seeds."""

    def __init__(
        self, rows: list[tuple[int, Tensor, float, float]], tried: int,
        rejected: dict[str, int],
    ) -> None:  # fmt: skip
        self.rows, self.tried, self.rejected = rows, tried, rejected

    @classmethod
    def of(cls, found: dict[int, Found]) -> _Points:
        rows, reasons = [], Counter[str]()
        for seed, f in found.items():
            columns = (f.points, f.losses.tolist(), f.gradients.tolist(), f.rejections)
            for point, loss, gradient, why in zip(*columns, strict=True):
                if why is None:
                    rows.append((seed, point, loss, gradient))
                else:
                    reasons[why.name] += 1
        return cls(rows, len(rows) + reasons.total(), dict(sorted(reasons.items())))

    def clusters(self, gap: float) -> list[list[int]]:
        return [c.tolist() for c in clusters([row[2] for row in self.rows], gap)]

    def level(
        self,
        model: nn.Module,
        members: list[int],
        loss_fn: LossFunction,
        data: list[Any],
    ) -> Level:
        """Judge the point of a cluster with the smallest gradient."""
        rows = [self.rows[i] for i in members]
        best = min(rows, key=lambda row: row[3])
        model = model.to(torch.float64).eval()
        Parameters.of(model).write(model, best[1])
        with warnings.catch_warnings():
            # They are kept with the point.
            warnings.simplefilter("ignore", LandscapeWarning)
            point = classify_point(model, loss_fn, data, progress=False)
        state = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }
        seeds = tuple(dict.fromkeys(row[0] for row in rows))
        return Level(point.loss, len(rows), tuple(sorted(seeds)), point, state)


def _path(folder: Path | None, seed: int) -> Path | None:
    return None if folder is None else folder / f"seed-{seed}.safetensors"


def _distinct(seeds: Sequence[int]) -> list[int]:
    found = [at_least("a seed", seed, 0) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"`seeds` must be distinct, and at least one; got {listed(found) or 'none'}."
        )
    return found
