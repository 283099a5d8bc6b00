r"""A direction that a wider network has, and the curvature along it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError


@dataclass(frozen=True, eq=False, kw_only=True)
class NeuronCertificate:
    r"""The curvature :math:`u^\top H u` along a unit direction of a wider network.

    Outputs do not change along it to first order, and no other direction is coupled to
    it: what is said holds at every point, critical or not. At a critical point a
    negative curvature makes a strict saddle of the wider network. Elsewhere it is a
    direction of descent next to the gradient.

    Attributes:
        kind: ``"split"`` of a neuron, or a ``"null"`` neuron that is added.
        neuron: The neuron that is split; ``None`` for a null neuron.
        alpha: The part of its outgoing weights that the copy gets; ``None`` for a null
            neuron.
        bias: The value before the activation of a null neuron; ``None`` for a split.
        share: The part of the neuron's outgoing weights that the pair has.
        curvature: :math:`u^\top H u`, in float64, for :math:`|u| = 1`.
        rounding: A bound on its rounding; see :class:`layerpeel.landscape.Curvature`.
            It includes what 64 units in the last place of the outputs do to residuals.
        gradient: The length of the gradient with respect to what moves of the neuron;
            zero at a critical point, and ``None`` for a null neuron.
        inertia: What the numbers of negative, zero and positive eigenvalues of the
            Hessian grow by; ``None`` where matrices were too large.
        moves: What moves into the neuron, by name: its row of each parameter, or rows.
            The neuron goes along :math:`\alpha` times these, the copy along
            :math:`\alpha - 1` times them; a null neuron along themselves.
        reads: What moves out of it, by name: with one block of columns, or one input
            channel, of each weight. The copy goes the other way.
        bias_moves: What the biases that a null neuron's readers have move by.
        start: What a null neuron begins with, by name, with weights and statistics of
            batch normalisation.
    """

    kind: str
    neuron: int | None = None
    alpha: float | None = None
    bias: float | None = None
    share: float = 1.0
    curvature: float
    rounding: float
    gradient: float | None = None
    inertia: tuple[int, int, int] | None = None
    moves: Mapping[str, Tensor]
    reads: Mapping[str, Tensor]
    bias_moves: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def is_negative(self) -> bool:
        """Whether the curvature is negative beyond its rounding."""
        return math.isfinite(self.rounding) and self.curvature + self.rounding < 0


def direction(
    certificate: NeuronCertificate, wide_model: nn.Module, old: int | None, new: int
) -> dict[str, Tensor]:
    r"""Return the unit direction of a certificate in the wide network.

    Args:
        certificate: The certificate.
        wide_model: The network that has been split, with channels in blocks: columns
            of a weight that reads maps of a neuron are next to each other.
        old: Which neuron was split, in the wide network; of no use for null neurons.
        new: Which neuron is the copy, or the null neuron.

    Returns:
        A tensor for each parameter that moves, of its shape and dtype.

    Raises:
        EditError: If the network has no such neurons.

    Example:
        >>> certificate = NeuronCertificate(
        ...     kind="split", neuron=0, alpha=0.5, curvature=-1.0, rounding=0.0,
        ...     moves={"0.weight": torch.tensor([[1.0]])},
        ...     reads={"1.weight": torch.tensor([[0.5]])},
        ... )
        >>> wide = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        >>> for name, step in direction(certificate, wide, 0, 1).items():
        ...     print(name, step.tolist())
        0.weight [[0.5], [-0.5]]
        1.weight [[0.5, -0.5]]
    """
    split = certificate.kind == "split"
    if split and old is None:
        raise EditError("`old` must be the neuron that was split; got None.")
    alpha = certificate.alpha or 0.0
    pairs = (
        [(old, alpha, 1.0), (new, alpha - 1.0, -1.0)] if split else [(new, 1.0, 1.0)]
    )
    found: dict[str, Tensor] = {}
    for index, into, out in pairs:
        assert index is not None
        for name, part in certificate.moves.items():
            step = _step(found, wide_model, name)
            rows = step.view(-1, *part.shape)
            _place(rows, name, index, part * into)
        for name, part in certificate.reads.items():
            step = _step(found, wide_model, name)
            columns = step if part.ndim > 2 else step.view(len(step), -1, part.shape[1])
            _place(columns.transpose(0, 1), name, index, part * out)
    for name, part in certificate.bias_moves.items():
        _step(found, wide_model, name).copy_(part)
    return found


def _step(found: dict[str, Tensor], model: nn.Module, name: str) -> Tensor:
    if name not in found:
        try:
            parameter = model.get_parameter(name)
        except AttributeError as error:
            raise EditError(
                f"The wide network must keep the names of the narrow one; it has no "
                f"parameter {name!r}. Pass the network that this one was made."
            ) from error
        found[name] = torch.zeros_like(parameter, requires_grad=False)
    return found[name]


def _place(rows: Tensor, name: str, index: int, part: Tensor) -> None:
    if not 0 <= index < len(rows):
        raise EditError(
            f"Neurons must be those of the wide network; {name!r} has {len(rows)}, and "
            f"{index} is none of them."
        )
    rows[index] = part.to(rows)
