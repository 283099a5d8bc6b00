"""Which chunks of the layer before the head are followed while a network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from layerpeel._checks import at_least, one_of
from layerpeel.measurement.clones.chunks import (
    checked_size,
    draw_chunks,
    dyadic_sizes,
)
from layerpeel.measurement.clones.profile.reconstruction_curves import Grid
from layerpeel.measurement.clones.reconstruction.reconstruction import SCOPES

WIDTHS = ("dyadic",)

PREFIX = "clones/"
"""What the names of their scalars begin with."""

FULL_ERROR = PREFIX + "full_error"
"""The name of the network's own error."""


@dataclass(frozen=True)
class Clones:
    r"""Random chunks of the neurons that the head reads, the same at every measurement.

    A clone is a chunk that does what the whole layer does: it reconstructs the other
    neurons linearly, what it misses of them is uncorrelated, and it decides as the
    network does.

    Attributes:
        widths: Numbers of neurons of chunks; or ``"dyadic"``, which stands for
            :math:`\lfloor W / 2^i \rfloor` below the width :math:`W` of the layer.
        repeats: The number of chunks of each width.
        scope: Which neurons a reconstruction is judged by: those of the
            ``"complement"`` of the chunk, or ``"all"``, as in the paper.

    References:
        | Redundant representations help generalization in wide neural networks
        | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485

    Raises:
        ValueError: If a choice is none, a width is below 1 or there is none, or there is
            no repeat.

    Example:
        >>> Clones([4, 1, 4]).widths
        (1, 4)
        >>> {w: len(chunks) for w, chunks in Clones(repeats=3).grid(20, 0).chunks.items()}
        {1: 3, 2: 3, 5: 3, 10: 3}
    """

    widths: str | Sequence[int] = "dyadic"
    repeats: int = 10
    scope: str = "complement"

    def __post_init__(self) -> None:
        one_of("scope", self.scope, SCOPES)
        at_least("repeats", self.repeats, 1)
        if isinstance(self.widths, str):
            one_of("widths", self.widths, WIDTHS)
            return
        sizes = tuple(sorted({at_least("size", w, 1) for w in self.widths}))
        if not sizes:
            raise ValueError(
                "`clones` must name at least one width of a chunk; got none. Pass "
                "'dyadic', or a list of numbers of neurons."
            )
        object.__setattr__(self, "widths", sizes)

    @classmethod
    def of(cls, choice: Clones | str | Sequence[int]) -> Clones:
        """Return the chunks that a shorthand means.

        Args:
            choice: The chunks themselves, ``"dyadic"``, or a list of widths.

        Raises:
            ValueError: If it is none of these.
        """
        return choice if isinstance(choice, Clones) else cls(choice)

    def grid(self, width: int, seed: int) -> Grid:
        """Draw the chunks of a layer, width by width.

        Args:
            width: The number of neurons :math:`W` of the layer.
            seed: Seed of the draw.

        Raises:
            ValueError: If a width is none of a chunk of this layer.
        """
        if isinstance(self.widths, str):
            # All neurons together tell nothing about clones.
            sizes = dyadic_sizes(width)[:-1] or (width,)
        else:
            sizes = tuple(checked_size(w, width) for w in self.widths)
        generator = torch.Generator().manual_seed(seed)
        chunks = {w: draw_chunks(width, w, self.repeats, generator) for w in sizes}
        return Grid(sizes, chunks, self.repeats)

    def to_dict(self) -> dict[str, Any]:
        """Return the choice, ready for JSON."""
        widths = self.widths if isinstance(self.widths, str) else list(self.widths)
        return {"widths": widths, "repeats": self.repeats, "scope": self.scope}
