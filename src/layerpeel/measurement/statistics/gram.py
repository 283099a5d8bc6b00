r"""Sums of outer products of rows, of which little more than a triangle is computed.

:math:`\sum_i x_i x_i^\top` is symmetric, so that half of its entries say nothing new.
They are left out a panel at a time: a panel of rows begins at its own first column, and
what is below the diagonal panels is copied when all rows are in.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float64
from torch import Tensor

# Four panels leave out three eighths of the product, and more of them little else.
# Narrow ones are slower than the product that they save.
_PANELS = 4
_LEAST_PANEL = 64


def add_gram(
    gram: Float64[Tensor, "d d"],
    left: Float64[Tensor, "n d"],
    right: Float64[Tensor, "n d"] | None = None,
    *,
    sign: int = 1,
) -> None:
    r"""Add :math:`\pm \sum_i l_i r_i^\top` in place, but for what :func:`mirror` fills in.

    Args:
        gram: The sum so far, with shape :math:`(d, d)`.
        left: The rows :math:`l_i`, with shape :math:`(n, d)`.
        right: The rows :math:`r_i`, each a multiple of :math:`l_i`, so that the sum is
            symmetric; those of ``left`` by default.
        sign: What to multiply the sum with, 1 or -1.

    Example:
        >>> import torch
        >>> gram = torch.zeros(2, 2).double()
        >>> add_gram(gram, torch.tensor([[1.0, 2.0]]).double())
        >>> mirror(gram)
        >>> gram.tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    right = left if right is None else right
    for panel in _panels(gram):
        start = panel.start
        gram[panel, start:].addmm_(left[:, panel].T, right[:, start:], alpha=sign)


def mirror(gram: Float64[Tensor, "d d"]) -> None:
    """Fill in, in place, what :func:`add_gram` has left out below the diagonal."""
    for panel in _panels(gram):
        gram[panel.stop :, panel] = gram[panel, panel.stop :].T


def _panels(gram: Tensor) -> Iterator[slice]:
    """Yield slices of rows; one for all on accelerators, where calls cost more."""
    width = len(gram)
    size = max(_LEAST_PANEL, -(-width // _PANELS)) if gram.is_cpu else width
    for start in range(0, width, max(1, size)):
        yield slice(start, min(width, start + size))
