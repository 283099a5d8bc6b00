"""The diagram of loss levels: narrow networks' critical points, wide networks' plateaus."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel.landscape import CriticalPoint
from layerpeel.studies.loss_levels.descent import Curve, Descent
from layerpeel.studies.loss_levels.levels import CriticalLevels, Level
from layerpeel.studies.loss_levels.networks import Hidden
from layerpeel.studies.loss_levels.picture import draw_hierarchy
from layerpeel.studies.loss_levels.plateaus import Plateau


@dataclass(frozen=True, eq=False)
class Rung:
    """A level of a narrow network, and what becomes of it in a wide one.

    Attributes:
        hidden: The widths of the narrow network's hidden layers.
        level: The level.
        outputs: The outputs of its network on all data, with shape :math:`(n, k)`.
        inherited: The widths of the narrowest network that has a level at the same
            loss; ``None`` if no narrower one has.
        embedded_in: The widths of the wide network that its point was embedded in, by
            copying neurons.
        embedded: What kind of point it is there. By the embedding principle its gradient
            is zero, up to rounding, and its loss the same; a minimum of the narrow
            network may be a strict saddle of the wide one.
    """

    hidden: Hidden
    level: Level
    outputs: Float64[Tensor, "n k"]
    inherited: Hidden | None
    embedded_in: Hidden
    embedded: CriticalPoint

    @property
    def embedded_gradient(self) -> float:
        """The gradient norm of the wide network at the embedded point."""
        return self.embedded.gradient_norm

    def to_dict(self) -> dict[str, Any]:
        """Return what it is, without outputs, ready for JSON."""
        content: dict[str, Any] = plain(
            {
                "hidden": self.hidden,
                **self.level.to_dict(),
                "inherited": self.inherited,
                "embedded_in": self.embedded_in,
                "embedded_gradient": self.embedded_gradient,
                "embedded_loss": self.embedded.loss,
                "embedded_kind": self.embedded.kind.name,
                "embedded_inertia": self.embedded.inertia
                and self.embedded.inertia.signs,
            }
        )
        return content

    def __repr__(self) -> str:
        """One line without the outputs."""
        return f"Rung({name_of(self.hidden)}, {self.level!r})"


@dataclass(frozen=True, eq=False)
class Match:
    """A plateau of a run and the level that is nearest to it.

    Attributes:
        descent: The run.
        plateau: The plateau.
        rung: The level whose loss is nearest in ratio; the narrowest network's if there
            are several.
        distance: The plateau's loss relative to the level's, less 1.
        output_distance: The root mean square of the difference of both networks'
            outputs, relative to that of the targets' deviation from their mean. Levels
            can be near by chance where there are many: outputs cannot.
    """

    descent: Descent
    plateau: Plateau
    rung: Rung
    distance: float
    output_distance: float

    def to_dict(self) -> dict[str, Any]:
        """Return run, plateau and level, ready for JSON."""
        content: dict[str, Any] = plain(
            {
                "run": self.descent.hidden,
                "seed": self.descent.seed,
                "start": self.plateau.start,
                "stop": self.plateau.stop,
                "loss": self.plateau.loss,
                "is_last": self.plateau.is_last,
                "level": self.rung.level.loss,
                "level_of": self.rung.hidden,
                "distance": self.distance,
                "output_distance": self.output_distance,
            }
        )
        return content


@dataclass(frozen=True, eq=False)
class Run:
    """A run of descent with what it recorded.

    Attributes:
        descent: The run.
        curve: Its records.
        plateaus: Its plateaus.
    """

    descent: Descent
    curve: Curve
    plateaus: tuple[Plateau, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return settings, losses and plateaus, ready for JSON."""
        content: dict[str, Any] = plain(
            {
                **asdict(self.descent),
                "recorded": self.curve.steps,
                "losses": self.curve.losses,
                "plateaus": [asdict(plateau) for plateau in self.plateaus],
            }
        )
        return content


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Levels of narrow networks and the training curves of wide and deep ones.

    Attributes:
        targets: The targets, with shape :math:`(n, k)`.
        searches: What was found for each narrow network, by its hidden widths.
        rungs: All levels, by network and then by loss, highest first.
        runs: The runs of wide and deep networks.
        fall: The share of the loss that may be lost per doubling on a plateau.
        doublings: How often the steps double on a plateau, at least.
    """

    targets: Float64[Tensor, "n k"]
    searches: dict[Hidden, CriticalLevels]
    rungs: tuple[Rung, ...]
    runs: tuple[Run, ...]
    fall: float
    doublings: float

    @cached_property
    def matches(self) -> tuple[Match, ...]:
        """Every plateau of every run with its nearest level; none without levels."""
        if not self._positive:
            return ()
        return tuple(self._match(r, p) for r in self.runs for p in r.plateaus)

    @property
    def _positive(self) -> list[Rung]:
        """The levels that have a logarithm: a perfect fit is at no distance in ratio."""
        top = max((rung.level.loss for rung in self.rungs), default=0.0)
        return [rung for rung in self.rungs if rung.level.loss > 1e-14 * top]

    def _match(self, run: Run, plateau: Plateau) -> Match:
        losses = torch.tensor([r.level.loss for r in self._positive]).double()
        # The first of those that are as near up to rounding: of the narrowest network.
        away = (plateau.loss / losses).log().abs()
        first = int((away <= away.min() + 1e-9).nonzero()[0])
        rung = self._positive[first]
        difference = run.curve.outputs[plateau.flattest] - rung.outputs
        spread = (self.targets - self.targets.mean(0)).norm()
        return Match(
            run.descent,
            plateau,
            rung,
            plateau.loss / rung.level.loss - 1,
            float(difference.norm() / spread),
        )

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the runs over their steps, and beside them the ladder of levels.

        Both are logarithmic and share the axis of losses. A column of the ladder is a
        narrow network, and a thick bar a level of it. From there a thin line goes on
        through wider networks, where the level is embedded: dashed if it is a strict
        saddle of the wide network. Plateaus are drawn thick; a dotted line leads from
        each to the level that is nearest to it, if it is within a tenth.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes of the runs.
        """
        return draw_hierarchy(ax, self)

    def to_dict(self) -> dict[str, Any]:
        """Return levels, runs and matches, ready for JSON."""
        return {
            "fall": self.fall,
            "doublings": self.doublings,
            "searches": [
                {"hidden": list(hidden), **found.to_dict()}
                for hidden, found in self.searches.items()
            ],
            "levels": [rung.to_dict() for rung in self.rungs],
            "runs": [run.to_dict() for run in self.runs],
            "matches": [match.to_dict() for match in self.matches],
        }

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with a row per plateau.

        Raises:
            ImportError: If pandas is not installed.
        """
        rows = [match.to_dict() for match in self.matches]
        return data_frame(rows, list(rows[0]) if rows else [])

    def summary(self) -> str:
        """Return the levels and the plateaus, in lines."""
        return "\n".join([*self._level_lines(), "", *self._plateau_lines()])

    def _level_lines(self) -> list[str]:
        head = (
            f"{'network':<8}{'loss':>10}  {'kind':<14}{'inertia':<11}{'found':>5}"
            f"  {'embedded in':<12}{'gradient':>9}  kind there"
        )
        return [head, *map(_level_line, self.rungs)]

    def _plateau_lines(self) -> list[str]:
        head = (
            f"{'run':<10}{'steps':>15}{'loss':>11}  {'nearest level':<24}"
            f"{'distance':>9}{'outputs':>9}"
        )
        return [head, *map(_plateau_line, self.matches)]

    def __repr__(self) -> str:
        """One line with what there is."""
        return (
            f"Hierarchy({len(self.rungs)} levels of {len(self.searches)} networks, "
            f"{len(self.matches)} plateaus of {len(self.runs)} runs)"
        )


def name_of(hidden: Hidden) -> str:
    """Return what a network is called: its hidden widths."""
    return "-".join(map(str, hidden))


def _level_line(rung: Rung) -> str:
    level = rung.level
    return (
        f"{name_of(rung.hidden):<8}{level.loss:>10.5g}  {level.kind.name:<14}"
        f"{level.inertia!s:<11}{level.count:>5}  {name_of(rung.embedded_in):<12}"
        f"{rung.embedded_gradient:>9.0e}  {rung.embedded.kind.name}"
    )


def _plateau_line(match: Match) -> str:
    plateau, rung = match.plateau, match.rung
    level = f"{rung.level.loss:.5g} of {name_of(rung.hidden)}"
    return (
        f"{name_of(match.descent.hidden):<10}{plateau.start:>7}-{plateau.stop:<7}"
        f"{plateau.loss:>11.5g}  {level:<24}{match.distance:>+9.1%}"
        f"{match.output_distance:>9.2%}"
    )
