r"""Whether one layer in place of two is critical where the two are.

The one layer's weights are a function :math:`\Phi` of those of the two. Around the data
the risk of the two is that of the one after :math:`\Phi`, so that its gradient is
:math:`J^\top` times the one's, and at a critical point its Hessian :math:`J^\top H J`.
Where :math:`J` has full row rank the one's gradient vanishes with that of the two, and
the two have the one's negative and positive eigenvalues, with a zero more for each
parameter more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerpeel._tolerances import EPS
from layerpeel.edits.linear.composition import Affine, amounts
from layerpeel.edits.linear.folding import Folded, trains_shift
from layerpeel.edits.linear.lines import Lines
from layerpeel.edits.linear.place import Place


def is_regular(place: Place, between: Folded, lines: Lines, merged: Affine) -> bool:
    r"""Whether every small change of the one layer is one of the two.

    That is so if :math:`V \mathrm{diag}(a)` has full row rank or
    :math:`\mathrm{diag}(a) U` full column rank; of convolutions, one has to be pointwise.

    Args:
        place: The place.
        between: What stands between the two.
        lines: The lines of its neurons; those off any piece count as zero.
        merged: The one layer.
    """
    first, second = place.producer.module, place.reader.module
    u, v = (_with_taps(module) for module in (first, second))
    reads = v.shape[2]
    trains = _trains(first.bias) or trains_shift(place.norms)
    if reads > 1 and (u.shape[2] > 1 or _border_trains(place, lines, trains)):
        return False
    scale = torch.where(lines.inside.to(u.device), between.scale, 0.0)
    by_producer = _are_independent((v.movedim(2, 1) * scale).flatten(0, 1))
    if _trains(merged.bias) and not _trains(second.bias):
        # Its bias is a new parameter; only that of the producer can stand in for it.
        own = first.weight.requires_grad or not _trains(merged.weight)
        return reads == 1 and trains and own and by_producer
    if not _trains(merged.weight) or (first.weight.requires_grad and by_producer):
        return True
    # Changes of the reader's weights alone move the bias too, if there is a constant.
    alone = _trains(second.bias) or not bool(between.constant.any())
    return alone and _are_independent((u.movedim(0, 2) * scale).flatten(0, 1))


def _trains(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


def _with_taps(module: Affine) -> Tensor:
    weight = module.weight.detach().double()
    return weight.reshape(*weight.shape[:2], -1)


def _border_trains(place: Place, lines: Lines, trains: bool) -> bool:
    """Whether a constant that is zero could leave it, and so change padded borders."""
    second = place.reader.module
    if not isinstance(second, nn.Conv2d) or second.padding_mode != "zeros":
        return False
    constant = trains or trains_shift(place.after[0]) or bool(lines.intercept.any())
    return any(amounts(second)) and constant


def _are_independent(rows: Tensor) -> bool:
    """Whether the rows of a matrix are linearly independent."""
    count, length = rows.shape
    size = float(rows.norm())
    # Columns of zeros, of neurons that are off, add nothing to the rank.
    if size == 0 or int((rows != 0).any(0).sum()) < count:
        return False
    scaled = rows / size
    gram = scaled @ scaled.T
    # That this is positive definite proves it, at a fraction of the cost of an SVD.
    gram.diagonal().sub_(4 * length * EPS)
    if int(torch.linalg.cholesky_ex(gram).info) == 0:
        return True
    return int(torch.linalg.matrix_rank(rows)) == count
