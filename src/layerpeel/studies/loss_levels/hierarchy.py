r"""The hierarchy of loss levels: a study.

Claim
    Zhang et al. 2021 (arXiv 2105.14573, 2111.15527): critical points of narrow networks
    are, embedded, critical points of wide ones, and wide networks that are trained from
    small weights linger near them. Bai et al. 2022 (arXiv 2205.13283): so do deep ones
    near those of shallow ones.
Data
    Two unequal steps with a ripple, at 50 points.
Networks
    Narrow ones of no, 1, 2 and 3 hidden tanh neurons, searched from 12 starts each; a
    wide one with a hidden layer of 50, and deep ones with two and three of 20, trained
    by full-batch gradient descent from small weights.
Command
    ``python benchmarks/hierarchy.py``.
Expected
    Plateaus of all three runs near the level of width 1, with nearly its outputs; of the
    first two also near a level of width 2. The wide run has a short one near no level.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError, ShapeError, one_of
from layerpeel._files import make_directory
from layerpeel.landscape import CriticalPoint, LandscapeWarning, classify_point
from layerpeel.studies.loss_levels.critical_points import critical_points
from layerpeel.studies.loss_levels.descent import Descent, descend
from layerpeel.studies.loss_levels.diagram import Hierarchy, Run, Rung, name_of
from layerpeel.studies.loss_levels.levels import CriticalLevels, Level
from layerpeel.studies.loss_levels.networks import (
    ACTIVATIONS,
    Hidden,
    checked_hidden,
    network,
    split,
)
from layerpeel.studies.loss_levels.plateaus import plateaus
from layerpeel.studies.loss_levels.search import Search

Data = tuple[Tensor, Tensor]

RUNS = (
    Descent((50,), steps=40_000),
    Descent((20, 20), scale=0.02, steps=30_000),
    Descent((20, 20, 20), scale=0.1, steps=30_000),
)
"""The runs of the study: a wide network, and two deep ones."""

# Starts are drawn wide enough to reach different critical points.
_START_SCALE = 1.0


def rippled_steps(samples: int = 50) -> Data:
    r"""Return the data of the study: two unequal steps with a ripple.

    It is :math:`\tanh(3(x + 1)) + 0.7 \tanh(5(x - 1)) + 0.3 \sin(3x)` on evenly spaced
    points of :math:`[-3, 3]`: one neuron gets the large step, and the levels of more
    neurons are well apart.

    Args:
        samples: The number of points.

    Returns:
        Inputs and targets, both with shape :math:`(n, 1)`.
    """
    x = torch.linspace(-3, 3, samples, dtype=torch.float64)[:, None]
    return x, torch.tanh(3 * (x + 1)) + 0.7 * torch.tanh(5 * (x - 1)) + 0.3 * (
        3 * x
    ).sin()


def hierarchy(
    data: Data | None = None,
    *,
    narrow: Sequence[Hidden] = ((0,), (1,), (2,), (3,)),
    runs: Sequence[Descent] = RUNS,
    activation: str = "tanh",
    seeds: Sequence[int] = range(12),
    search: Search | None = None,
    gap: float = 1e-6,
    fall: float = 0.05,
    doublings: float = 0.5,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Hierarchy:
    r"""Draw the plateaus of wide and deep networks over the levels of narrow ones.

    Critical points of narrow networks are searched by :func:`critical_points`, and wide
    networks are trained on the same data, with the mean squared error. Every level is
    embedded into the widest network of its depth, by copies of its neurons, and it is
    judged what kind of point it is there.

    References:
        | Embedding Principle of Loss Landscape of Deep Neural Networks (Zhang et al.,
        | 2021), https://arxiv.org/abs/2105.14573
        | Embedding Principle in Depth for the Loss Landscape Analysis of Deep Neural
        | Networks (Bai et al., 2022), https://arxiv.org/abs/2205.13283

    Args:
        data: Inputs and targets with shapes :math:`(n, d)` and :math:`(n, k)`; those of
            :func:`rippled_steps` when omitted.
        narrow: The hidden widths of the narrow networks, narrowest first.
        runs: The runs of wide and deep networks.
        activation: ``"tanh"``, ``"sigmoid"``, ``"gelu"``, ``"silu"`` or ``"relu"``.
        seeds: Where the starts of the searches come from.
        search: How to look for critical points.
        gap: The relative gap between levels.
        fall: The share of the loss that may be lost per doubling on a plateau; see
            :func:`plateaus`.
        doublings: How often the steps double on a plateau, at least.
        folder: Where all results are kept, so that a study that was killed goes on; made
            if it is missing. Nowhere when omitted.
        progress: Whether to show progress bars; on a terminal when omitted.

    Returns:
        The levels, the runs, and the plateaus with their nearest levels.

    Raises:
        ShapeError: If inputs and targets do not have shapes :math:`(n, d)`, :math:`(n, k)`.
        NonFiniteError: If they hold NaN or infinity, or a run diverges.
        ValueError: If there is no narrow network, one appears twice, or an option is out
            of its range.
        FileError: If a file is damaged, or of other settings or data.
        OSError: If the folder cannot be written to.

    Example:
        >>> runs = [Descent((5,), steps=50)]
        >>> found = hierarchy(narrow=[(0,), (1,)], runs=runs, seeds=[0], doublings=4)
        >>> found
        Hierarchy(2 levels of 2 networks, 0 plateaus of 1 runs)
        >>> [round(rung.level.loss, 5) for rung in found.rungs]
        [1.8961, 0.01498]
    """
    inputs, targets = _checked_data(rippled_steps() if data is None else data)
    one_of("activation", activation, ACTIVATIONS)
    shapes = _checked_shapes(narrow)
    place = None if folder is None else make_directory(folder)
    # Before long work: a curve of one record has no plateau, whatever its height.
    plateaus([1], [1.0], fall=fall, doublings=doublings)
    searches = {
        hidden: critical_points(
            _Start((inputs.shape[1], *hidden, targets.shape[1]), activation),
            nn.functional.mse_loss, [(inputs, targets)], seeds=seeds, search=search,
            gap=gap, folder=place and place / f"levels-{name_of(hidden)}",
            progress=progress,
        )
        for hidden in shapes
    }  # fmt: skip
    ladder = _Ladder(inputs, targets, activation, gap, [run.hidden for run in runs])
    rungs = ladder.rungs(searches)
    trained = [
        _run(descent, inputs, targets, activation, place, fall, doublings, progress)
        for descent in runs
    ]
    return Hierarchy(targets, searches, rungs, tuple(trained), fall, doublings)


class _Start:
    """Builds the starts of a search."""

    def __init__(self, widths: tuple[int, ...], activation: str) -> None:
        self.widths, self.activation = widths, activation

    def __call__(self, seed: int) -> nn.Sequential:
        return network(self.widths, self.activation, _START_SCALE, seed)


def _run(
    descent: Descent, inputs: Tensor, targets: Tensor, activation: str,
    folder: Path | None, fall: float, doublings: float, progress: bool | None,
) -> Run:  # fmt: skip
    name = f"run-{name_of(descent.hidden)}-seed-{descent.seed}.safetensors"
    path = None if folder is None else folder / name
    curve = descend(descent, inputs, targets, activation, path, progress=progress)
    # A run that has fitted the data exactly has no logarithm from there on.
    kept = int((curve.losses > 0).long().cumprod(0).sum())
    found = plateaus(
        curve.steps[:kept], curve.losses[:kept], fall=fall, doublings=doublings
    )
    return Run(descent, curve, found)


class _Ladder:
    """Puts levels in order, and embeds each in a wide network."""

    def __init__(
        self, inputs: Tensor, targets: Tensor, activation: str, gap: float,
        wide: Sequence[Hidden],
    ) -> None:  # fmt: skip
        self.inputs, self.targets, self.activation = inputs, targets, activation
        self.gap, self.wide = gap, wide

    def rungs(self, searches: dict[Hidden, CriticalLevels]) -> tuple[Rung, ...]:
        found: list[Rung] = []
        for hidden, levels in searches.items():
            narrower = [
                rung for rung in found
                if len(rung.hidden) == len(hidden)
                and all(a <= b for a, b in zip(rung.hidden, hidden, strict=True))
            ]  # fmt: skip
            found += [self._rung(hidden, level, narrower) for level in levels]
        return tuple(found)

    def _rung(self, hidden: Hidden, level: Level, narrower: Sequence[Rung]) -> Rung:
        widths = (self.inputs.shape[1], *hidden, self.targets.shape[1])
        model = network(widths, self.activation, _START_SCALE, 0)
        model.load_state_dict(dict(level.state))
        into = self._wider(hidden)
        with torch.no_grad():
            outputs = model(self.inputs)
        same = (r.hidden for r in narrower if self._equal(r.level.loss, level.loss))
        embedded = self._judged(split(model, into))
        return Rung(hidden, level, outputs, next(same, None), into, embedded)

    def _wider(self, hidden: Hidden) -> Hidden:
        """Return the widths of the widest run of this depth, or twice the widths."""
        fitting = [
            wide for wide in self.wide
            if len(wide) == len(hidden)
            and all(a >= b for a, b in zip(wide, hidden, strict=True))
        ]  # fmt: skip
        return max(fitting, default=tuple(2 * max(width, 1) for width in hidden))

    def _equal(self, a: float, b: float) -> bool:
        return abs(a - b) <= self.gap * max(a, b)

    def _judged(self, model: nn.Module) -> CriticalPoint:
        data = [(self.inputs, self.targets)]
        with warnings.catch_warnings():
            # They are kept with the point.
            warnings.simplefilter("ignore", LandscapeWarning)
            return classify_point(
                model, nn.functional.mse_loss, data, dense_limit=1000, progress=False
            )


def _checked_shapes(narrow: Sequence[Hidden]) -> list[Hidden]:
    shapes = [checked_hidden("narrow", hidden, 0) for hidden in narrow]
    if not shapes or len(set(shapes)) < len(shapes):
        raise ValueError(
            f"`narrow` must be distinct widths, and at least one; got {narrow!r}."
        )
    return shapes


def _checked_data(
    data: tuple[object, object],
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "n k"]]:
    inputs, targets = (torch.as_tensor(part, dtype=torch.float64) for part in data)
    if inputs.ndim != 2 or targets.ndim != 2 or len(inputs) != len(targets):
        raise ShapeError(
            "`data` must be inputs and targets with shapes (n, d) and (n, k); got "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}. Add an axis with "
            "`[:, None]`."
        )
    if not bool(inputs.isfinite().all() and targets.isfinite().all()):
        raise NonFiniteError("`data` must be finite; it holds NaN or infinity.")
    if len(inputs) < 2 or not bool((targets - targets.mean(0)).any()):
        raise ValueError(
            "`data` must have at least 2 samples, with targets that differ; got "
            f"{len(inputs)}."
        )
    return inputs, targets
