r"""The direction that new neurons open together, in the parameters of the wider model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerpeel.edits.resizing import Channels, Resizing
from layerpeel.edits.width.certificate import NeuronCertificate, direction
from layerpeel.edits.width.splits import Split, Splits


@dataclass(frozen=True, eq=False)
class EscapeDirection:
    r"""A unit direction of negative curvature.

    Attributes:
        steps: What moves, by name.
        curvature: :math:`v^\top H v`, as certificates give it.
    """

    steps: Mapping[str, Tensor]
    curvature: float


def escape_direction(
    model: nn.Module,
    resizing: Resizing,
    splits: Splits,
    certificates: Sequence[NeuronCertificate],
) -> EscapeDirection | None:
    r"""Return the direction that several new neurons open, each by its part.

    No direction that a split opens is coupled to those that there were before, which
    later splits carry over. So along :math:`\sum_i w_i u_i` the curvature is
    :math:`\sum_i w_i^2 \kappa_i`, divided by the squared length. The weights are the
    curvatures :math:`\kappa_i` of the certificates, where those are negative.

    Args:
        model: The wider model.
        resizing: The layer that is wider.
        splits: Its new neurons.
        certificates: One for each, in order.

    Returns:
        The direction; ``None`` if no curvature is negative beyond its rounding.
    """
    total: dict[str, Tensor] = {}
    value = 0.0
    for i, (split, certificate) in enumerate(
        zip(splits.made, certificates, strict=True)
    ):
        if not certificate.is_negative:
            continue
        weight = -certificate.curvature
        value += weight**2 * certificate.curvature
        old = None if split.parent < 0 else split.parent
        steps = direction(certificate, model, old, splits.width + i)
        for name, step in _carried(steps, resizing, splits, i + 1).items():
            total[name] = total.get(name, 0.0) + weight * step
    if not total:
        return None
    length = torch.stack([step.norm() for step in total.values()]).norm()
    unit = {
        name: (step / length).to(model.get_parameter(name))
        for name, step in total.items()
    }
    return EscapeDirection(unit, value / float(length) ** 2)


def _carried(
    steps: Mapping[str, Tensor], resizing: Resizing, splits: Splits, start: int
) -> dict[str, Tensor]:
    """Return what later splits make of a direction."""
    rows, columns = resizing.row_axes(), resizing.column_axes()
    wide = Channels(splits.width + len(splits.made), resizing.channels.last)
    carried = {name: step.double().cpu().clone() for name, step in steps.items()}
    for new, split in enumerate(splits.made[start:], splits.width + start):
        if split.parent < 0:
            continue
        for name, step in carried.items():
            if name in rows or name in columns:
                axis = columns.get(name, 0)
                # A view, as what is split is contiguous.
                by_neuron = wide.split(step, axis).movedim(axis, 0)
                _split(by_neuron, split, new, into=name in rows)
    return carried


def _split(by_neuron: Tensor, split: Split, new: int, *, into: bool) -> None:
    """Do to a direction what a split does to the parameters."""
    own = by_neuron[split.parent].clone()
    by_neuron[new] = own if into else split.alpha * own
    by_neuron[split.parent] = own if into else (1 - split.alpha) * own
