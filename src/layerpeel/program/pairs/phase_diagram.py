r"""Minority collapse over imbalance and energy: one map instead of many solves.

The Layer-Peeled Model of two groups of classes depends on two numbers besides their
sizes: the ratio :math:`R = n_A / n_B` and the product :math:`E_W E_H`. Its three phases
meet in two curves, :math:`R_0` and :math:`R_1`: minority classifiers differ, are equal,
are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, SupportsFloat

import numpy as np
import torch
from jaxtyping import Bool, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq
from torch import Tensor

from layerpeel._checks import at_least, listed, positive, undefined
from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel._tolerances import CERTIFIED_GAP
from layerpeel.program._inputs import numbers
from layerpeel.program.energy import Energy
from layerpeel.program.pairs.certificate import relative_gaps
from layerpeel.program.pairs.dual_grid import solve_two_group_grid
from layerpeel.program.pairs.phase_picture import draw_phases
from layerpeel.program.pairs.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)

Grid = Iterable[SupportsFloat]


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    r"""The optimum of the Layer-Peeled Model for a grid of ratios and energies.

    Rows are energies, columns are ratios.

    Attributes:
        majority: The number of majority classes :math:`K_A`.
        minority: The number of minority classes :math:`K_B`.
        imbalance: The ratios :math:`R = n_A / n_B`, with shape :math:`(r,)`.
        energy: The products :math:`E_W E_H`, with shape :math:`(e,)`.
        minority_cosine: The cosine between two minority classifiers, with shape
            :math:`(e, r)`: :math:`-1/(K-1)` for balanced classes, 1 where they are
            equal, NaN where they are zero and have no direction.
        minority_norm: Their norm in units of :math:`\sqrt{E_W}`, which every classifier
            has when the classes are balanced; exactly zero where they have vanished.
        majority_norm: The same for majority classifiers.
        collapsed: Where minority classifiers are equal, the vanished ones included.
        log_objective: The logarithm of the mean loss, which does not underflow.
        gap: The relative gap of every cell to a lower bound evaluated there.
        gap_tol: The gap up to which a cell is certified.
        log_collapse_threshold: :math:`\log R_0` for every energy, with shape
            :math:`(e,)`.
        log_vanishing_threshold: :math:`\log R_1`, infinite where they never vanish.

    Example:
        >>> diagram = phase_diagram(5, 5, imbalance=[1, 10, 100], energy=[5.0])
        >>> [round(cosine, 4) for cosine in diagram.minority_cosine[0].tolist()]
        [-0.1111, 0.5175, 1.0]
        >>> diagram.collapsed.tolist(), bool(diagram.certified.all())
        ([[False, False, True]], True)
        >>> round(float(diagram.collapse_threshold[0]), 3)
        12.192
    """

    majority: int
    minority: int
    imbalance: Float64[Tensor, " r"]
    energy: Float64[Tensor, " e"]
    minority_cosine: Float64[Tensor, "e r"]
    minority_norm: Float64[Tensor, "e r"]
    majority_norm: Float64[Tensor, "e r"]
    collapsed: Bool[Tensor, "e r"]
    log_objective: Float64[Tensor, "e r"]
    gap: Float64[Tensor, "e r"]
    gap_tol: float
    log_collapse_threshold: Float64[Tensor, " e"]
    log_vanishing_threshold: Float64[Tensor, " e"]

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return self.majority + self.minority

    @property
    def collapse_threshold(self) -> Float64[Tensor, " e"]:
        r"""The ratios :math:`R_0`; infinite where they overflow."""
        return self.log_collapse_threshold.exp()

    @property
    def vanishing_threshold(self) -> Float64[Tensor, " e"]:
        r"""The ratios :math:`R_1`; infinite where minority classifiers never vanish."""
        return self.log_vanishing_threshold.exp()

    @property
    def vanished(self) -> Bool[Tensor, "e r"]:
        """Where minority classifiers and features are zero."""
        return self.minority_norm == 0

    @property
    def certified(self) -> Bool[Tensor, "e r"]:
        """Where the evaluated gap is at most ``gap_tol``."""
        return self.gap <= self.gap_tol

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        r"""Draw the minority cosine, with the curves :math:`R_0` and :math:`R_1`.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.

        Raises:
            ValueError: If a grid has fewer than two points.
        """
        for name in ("imbalance", "energy"):
            if len(getattr(self, name)) < 2:
                raise ValueError(
                    f"`{name}` must have at least 2 points to be drawn; got "
                    f"{len(getattr(self, name))}. Read `minority_cosine` instead."
                )
        return draw_phases(
            ax,
            self.imbalance.numpy(),
            self.energy.numpy(),
            self.minority_cosine.numpy(),
            (self.majority, self.minority),
        )

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with one row per cell.

        Raises:
            ImportError: If pandas is not installed.
        """
        energy, imbalance = torch.meshgrid(self.energy, self.imbalance, indexing="ij")
        columns = {"imbalance": imbalance, "energy": energy} | self._cells()
        return data_frame({name: cells.flatten() for name, cells in columns.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; undefined is ``None``."""
        content = {
            "majority": self.majority,
            "minority": self.minority,
            "imbalance": self.imbalance,
            "energy": self.energy,
            "gap_tol": self.gap_tol,
            "log_collapse_threshold": self.log_collapse_threshold,
            "log_vanishing_threshold": self.log_vanishing_threshold,
        }
        return {key: plain(value) for key, value in (content | self._cells()).items()}

    def _cells(self) -> dict[str, Tensor]:
        return {
            "minority_cosine": self.minority_cosine,
            "minority_norm": self.minority_norm,
            "majority_norm": self.majority_norm,
            "collapsed": self.collapsed,
            "vanished": self.vanished,
            "log_objective": self.log_objective,
            "gap": self.gap,
        }


def phase_diagram(
    majority: int,
    minority: int,
    *,
    imbalance: Grid | None = None,
    energy: Grid | None = None,
    gap_tol: float = CERTIFIED_GAP,
) -> PhaseDiagram:
    r"""Solve the Layer-Peeled Model for every pair of a ratio and an energy.

    All cells are solved at once, each with its own certificate; 200 times 200 cells
    take well under a second.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: the
        | model; minority cosines over the ratio at a few energies

    Args:
        majority: The number of majority classes :math:`K_A \geq 1`.
        minority: The number of minority classes :math:`K_B \geq 2`: a single one has no
            cosine.
        imbalance: The ratios :math:`R = n_A / n_B \geq 1`, increasing; 200 from 1 to
            10,000 when omitted.
        energy: The products :math:`E_W E_H`, increasing; when omitted, 200 over which
            :math:`R_0` grows from 1.2 to a million. Only the product matters: the ratio
            of both energies rescales classifiers against features.
        gap_tol: The relative gap up to which a cell calls itself certified.

    Returns:
        The diagram.

    Raises:
        ValueError: If a number of classes is too small, or a grid is empty, not
            increasing, not finite, or out of its range.

    Warns:
        UndefinedWarning: Once, if minority classifiers vanish anywhere in the grid: their
            cosine is NaN there.

    Example:
        >>> diagram = phase_diagram(5, 5, imbalance=[1.0, 2.0], energy=[5.0, 20.0])
        >>> fig, ax = diagram.plot()
    """
    K_A = at_least("majority", majority, 1)
    K_B = at_least("minority", minority, 2)
    positive("gap_tol", gap_tol)
    ratios = _grid("imbalance", imbalance, np.geomspace(1, 1e4, 200), least=1.0)
    products = _grid("energy", energy, _energies(K_A, K_B), least=0.0)
    tau = [Energy(1.0, product).nuclear_norm(K_A + K_B) for product in products]
    batch = solve_two_group_grid(K_A, K_B, [math.log(r) for r in ratios], tau)
    gap, log_objective = relative_gaps(batch)
    cosine = batch.minority_cosine
    if np.isnan(cosine).any():
        undefined(
            f"The cosine between minority classifiers is undefined in "
            f"{int(np.isnan(cosine).sum())} of {cosine.size} cells: they are zero there "
            "(ratios from `vanishing_threshold` on)."
        )
    majority_square, minority_square = batch.squared_norms
    return PhaseDiagram(
        majority=K_A,
        minority=K_B,
        imbalance=torch.tensor(ratios, dtype=torch.float64),
        energy=torch.tensor(products, dtype=torch.float64),
        minority_cosine=torch.from_numpy(cosine),
        minority_norm=torch.from_numpy(np.sqrt(minority_square)),
        majority_norm=torch.from_numpy(np.sqrt(majority_square)),
        collapsed=torch.from_numpy(batch.beta == 0),
        log_objective=torch.from_numpy(log_objective),
        gap=torch.from_numpy(gap),
        gap_tol=gap_tol,
        log_collapse_threshold=torch.tensor(
            [log_collapse_threshold(K_A, K_B, t) for t in tau], dtype=torch.float64
        ),
        log_vanishing_threshold=torch.tensor(
            [log_vanishing_threshold(K_A, K_B, t) for t in tau], dtype=torch.float64
        ),
    )


def _energies(K_A: int, K_B: int) -> np.ndarray:
    """Return products of energies over which the collapse threshold is of interest."""

    def excess(log_tau: float, ratio: float) -> float:
        threshold = log_collapse_threshold(K_A, K_B, math.exp(log_tau))
        return math.log(threshold / math.log(ratio))

    ends = [brentq(excess, -20.0, 40.0, args=(ratio,)) for ratio in (1.2, 1e6)]
    low, high = (math.exp(2 * log_tau) / (K_A + K_B) ** 2 for log_tau in ends)
    return np.geomspace(low, high, 200)


def _grid(
    name: str, values: Grid | None, default: np.ndarray, least: float
) -> tuple[float, ...]:
    """Return a grid as increasing numbers."""
    given = default if values is None else values
    grid = numbers(name, given, each="point", example="[1, 10, 100]")
    inside = all(math.isfinite(v) and v >= least and v > 0 for v in grid)
    bound = f"of at least {least:g}" if least else "above 0"
    if not grid or not inside:
        raise ValueError(
            f"`{name}` must hold finite numbers {bound}; got {listed(grid) or 'none'}."
        )
    if any(b <= a for a, b in pairwise(grid)):
        raise ValueError(
            f"`{name}` must be increasing; got {listed(grid)}. "
            f"Pass `numpy.unique({name})`."
        )
    return grid
