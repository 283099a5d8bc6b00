"""Levels of the loss: critical points of a network, put together by their loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._json import plain
from layerpeel.landscape import CriticalPoint, Inertia, Kind

# Losses closer than this share of the largest are the same: about what rounding of a
# vanishing residual leaves.
_FLOOR = 1e-14


@dataclass(frozen=True, eq=False)
class Level:
    """Critical points of equal loss.

    They may be several: copies that differ by a symmetry, or points of a flat manifold.
    What is said of the point is said of the one with the smallest gradient.

    Attributes:
        loss: The loss.
        count: How many of the points that were found have it.
        seeds: The seeds that led to one of them.
        point: What kind of point it is.
        state: The parameters and buffers of the network there, in float64.
    """

    loss: float
    count: int
    seeds: tuple[int, ...]
    point: CriticalPoint
    state: Mapping[str, Tensor]

    @property
    def kind(self) -> Kind:
        """The kind of the point."""
        return self.point.kind

    @property
    def inertia(self) -> Inertia | None:
        """The signs of its eigenvalues; ``None`` if there are too many."""
        return self.point.inertia

    def to_dict(self) -> dict[str, Any]:
        """Return what it is, without the state, ready for JSON."""
        content: dict[str, Any] = plain(
            {
                "loss": self.loss,
                "kind": self.kind.name,
                "inertia": self.inertia and self.inertia.signs,
                "gradient": self.point.gradient_norm,
                "count": self.count,
                "seeds": self.seeds,
            }
        )
        return content

    def __repr__(self) -> str:
        """One line without the parameters."""
        signs = self.inertia or "unknown"
        return f"Level({self.loss:.6g}, {self.kind.name}, {signs}, {self.count} points)"


@dataclass(frozen=True, eq=False)
class CriticalLevels:
    """The levels of a network that a search found, and what it rejected.

    Attributes:
        levels: The levels, highest loss first.
        tried: How many points were polished.
        rejected: How many of them were rejected, by the name of the reason.
        gap: The relative gap between two losses that makes them two levels.
    """

    levels: tuple[Level, ...]
    tried: int
    rejected: Mapping[str, int]
    gap: float

    @property
    def losses(self) -> Float64[Tensor, " m"]:
        """The losses of the levels, with shape :math:`(m,)`."""
        return torch.tensor([level.loss for level in self.levels], dtype=torch.float64)

    @property
    def accepted(self) -> int:
        """How many points were accepted."""
        return self.tried - sum(self.rejected.values())

    def __len__(self) -> int:
        """Return the number of levels."""
        return len(self.levels)

    def __iter__(self) -> Iterator[Level]:
        """Return the levels one by one."""
        return iter(self.levels)

    def __getitem__(self, index: int) -> Level:
        """Return a level."""
        return self.levels[index]

    def to_dict(self) -> dict[str, Any]:
        """Return all levels without their parameters, ready for JSON."""
        return {
            "levels": [level.to_dict() for level in self.levels],
            "tried": self.tried,
            "rejected": dict(self.rejected),
            "gap": self.gap,
        }

    def summary(self) -> str:
        """Return the levels and the rejections, in lines."""
        reasons = ", ".join(f"{n} {name}" for name, n in self.rejected.items())
        lines = [
            f"{len(self)} levels of {self.accepted} critical points; {self.tried} tried"
            + (f", rejected: {reasons}" if reasons else ""),
            *(
                f"{level.loss:>12.6g}  {level.kind.name:<28}  {level.inertia}  "
                f"{level.count} points"
                for level in self.levels
            ),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line with the losses."""
        losses = ", ".join(f"{level.loss:.4g}" for level in self.levels)
        return f"CriticalLevels({losses}; {self.accepted} of {self.tried} points)"


def clusters(
    losses: Float64[Tensor, " k"] | Sequence[float], gap: float
) -> list[Int64[Tensor, " c"]]:
    r"""Put losses together that are equal up to a relative gap, highest first.

    In order of size, neighbours :math:`a < b` are in one cluster if
    :math:`b - a \le g\, b`, or if they differ by less than :math:`10^{-14}` of the
    largest: then the losses are zero up to rounding.

    Args:
        losses: The losses, none below zero, with shape :math:`(k,)`.
        gap: The gap :math:`g`.

    Returns:
        The indices of each cluster, with shapes :math:`(c,)`.

    Example:
        >>> [c.tolist() for c in clusters([0.1, 0.5, 0.1 + 1e-9, 1e-30, 0.0], gap=1e-6)]
        [[1], [2, 0], [3, 4]]
    """
    values = torch.as_tensor(losses, dtype=torch.float64)
    if not len(values):
        return []
    order = values.argsort(descending=True, stable=True)
    sorted_values = values[order]
    steps = sorted_values[:-1] - sorted_values[1:]
    new = steps > (gap * sorted_values[:-1]).clamp(min=_FLOOR * float(sorted_values[0]))
    starts = (new.nonzero().flatten() + 1).tolist()
    return list(torch.tensor_split(order, starts))
