"""The result of every edit: a new model and what is proved of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.proof import Proof


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """An edited model; printed, it is its summary.

    Attributes:
        model: A new module, with parameters of its own, that trains, saves and loads.
        proof: What was proved and measured.
        what: What was done, in words.
        lifts: The layers that were inserted.
        direction: Parameters to move, by name: of a lift, one step along which the risk
            changes by ``proof.slope``; of a wider layer a unit direction, along which
            the curvature of the risk is ``proof.curvature``. Empty if there is none.
        optimizer: One for the new model, with the state of the old one carried over;
            ``None`` if none was given.
    """

    model: nn.Module
    proof: Proof
    what: str
    lifts: tuple[Lift, ...] = ()
    direction: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Optimizer | None = None

    def summary(self) -> str:
        """Return what was done and what is proved, as lines of text."""
        return "\n".join([self.what, *(f"  {line}" for line in self.proof.lines())])

    def to_dict(self) -> dict[str, Any]:
        """Return what was done and what is proved, ready for JSON; no weights."""
        return {"what": self.what, "proof": self.proof.to_dict()}

    def __repr__(self) -> str:
        return self.summary()
