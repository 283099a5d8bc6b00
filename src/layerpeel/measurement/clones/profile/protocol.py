"""How a layer is profiled: which chunks are drawn of it, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from layerpeel._checks import at_least, one_of
from layerpeel.measurement.clones.chunks import (
    draw_chunks,
    draw_permutation,
    dyadic_sizes,
)
from layerpeel.measurement.clones.profile.reconstruction_curves import Grid
from layerpeel.measurement.clones.reconstruction.reconstruction import SCOPES

Widths: TypeAlias = str | Sequence[int]

WIDTHS = ("dyadic", "all")


@dataclass(frozen=True)
class Protocol:
    """How a layer is profiled.

    Attributes:
        widths: Widths of chunks: ``"dyadic"``, ``"all"``, or a list.
        repeats: Chunks of each width.
        scope: Which neurons are judged by.
        paper: Whether to follow Doimo et al. (2021) to the letter.
        generator: Where randomness comes from.
        progress: Whether to show progress bars.
    """

    widths: Widths
    repeats: int
    scope: str
    paper: bool
    generator: torch.Generator
    progress: bool | None

    @classmethod
    def of(
        cls,
        widths: Widths,
        repeats: int,
        scope: str | None,
        generator: torch.Generator | None,
        *,
        paper: bool,
        progress: bool | None,
    ) -> Protocol:
        """Return a protocol, if it is one.

        Raises:
            ValueError: If a choice is none, or there is no repeat.
        """
        _check_widths(widths, paper=paper)
        scope = ("all" if paper else "complement") if scope is None else scope
        one_of("scope", scope, SCOPES)
        _check_generator(generator)
        repeats = at_least("repeats", repeats, 1)
        drawn = torch.Generator().manual_seed(0) if generator is None else generator
        return cls(widths, repeats, scope, paper, drawn, progress)

    def grid(self, width: int) -> Grid:
        """Draw the chunks of a layer.

        Raises:
            ValueError: If a width is none of a chunk, or there is none.
        """
        every = isinstance(self.widths, str) and self.widths == "all"
        detailed = self._detailed(width)
        chunks = {
            w: draw_chunks(width, w, self.repeats, self.generator) for w in detailed
        }
        if not every:
            return Grid(detailed, chunks, self.repeats)
        orders = [draw_permutation(width, self.generator) for _ in range(self.repeats)]
        every_width = tuple(range(1, width + 1))
        return Grid(every_width, chunks, self.repeats, torch.stack(orders))

    def _detailed(self, width: int) -> tuple[int, ...]:
        """Return the widths at which everything is computed."""
        if isinstance(self.widths, str):
            return dyadic_sizes(width)
        sizes = sorted({_checked_width(w, width) for w in self.widths})
        if not sizes:
            raise ValueError(
                "`widths` must hold at least one width of a chunk; got none. Pass "
                "'dyadic', 'all' or a list of numbers of neurons."
            )
        return tuple(sizes)


def _check_widths(widths: object, *, paper: bool) -> None:
    if isinstance(widths, str):
        one_of("widths", widths, WIDTHS)
        if paper and widths == "all":
            raise ValueError(
                "`widths` must be 'dyadic' or a list for the paper's definitions: between "
                "dyadic widths there is no ridge; got 'all'."
            )
    elif not isinstance(widths, Iterable):
        raise ValueError(
            "`widths` must be 'dyadic', 'all' or a list of numbers of neurons; got "
            f"{widths!r}."
        )


def _check_generator(generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            "`generator` must be a torch.Generator; got "
            f"{type(generator).__name__}. Pass `torch.Generator().manual_seed(0)`."
        )


def _checked_width(size: int, width: int) -> int:
    if at_least("widths", size, 1) > width:
        raise ValueError(
            f"`widths` must be at most the {width} neurons of the layer; got {size}."
        )
    return int(size)
