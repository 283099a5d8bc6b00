r"""Insert a layer that is affine on the data: outputs and critical points are kept.

A layer :math:`W f + b` that reads features :math:`f` becomes
:math:`V \sigma(U f + b') + c'`, where every inserted pre-activation lies on an affine
piece of :math:`\sigma` for all data, and the two maps in a row are the old one. Around
the data the deeper network is the old one with another parametrisation, so that its
gradient vanishes where the old one did. Its Hessian there has as many negative and
positive eigenvalues as before, and a zero more for each dimension of the set of such
lifts: a minimum stays one. What can lower the loss is to move along that set until a
sample meets a kink: the boundary.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283: the lifting; the
    | statements on inertia, dimension and boundary are this package's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from layerpeel._checks import EditError, at_least, listed, one_of
from layerpeel.edits.activations import Piece, affine_pieces, out_of_place, segment
from layerpeel.edits.data import Data
from layerpeel.edits.depth.boundary import Boundary, boundary_lift
from layerpeel.edits.depth.lift import Lift, Weights, like, placement, resting
from layerpeel.edits.depth.lift_proof import (
    BOUNDARY,
    NEW_BIAS,
    NO_DESCENT,
    SMOOTH,
    LiftProof,
)
from layerpeel.edits.depth.margins import Margins
from layerpeel.edits.edit import Edit
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.passes import (
    LossFunction,
    Range,
    changed,
    check_outputs,
    gradient_norm,
    ranges,
)
from layerpeel.edits.proof import DATA_ONLY, UNREGULARISED

PLACES = ("interior", "boundary")
CONSTRUCTIONS = ("auto", "features", "preactivations")


def deepen(
    model: nn.Module,
    after: str | Sequence[str],
    data: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    width: int | None = None,
    at: str = "interior",
    activation: nn.Module | None = None,
    construction: str = "auto",
    into: str | None = None,
    segment_radius: float = 0.01,
) -> Edit:
    r"""Insert a layer, such that outputs on the data and critical points are kept.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        after: The path of a layer: the insertion comes after its batch normalisation
            and activation, where those follow. ``"input"`` is the input of the network.
            Of several paths, one after the other is lifted.
        data: The loader, with batches ``(input, target)``.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms before and after are then measured.
        width: The number of inserted neurons, or channels, at least the smaller one of
            the numbers of features and of neurons that read them. As many as there are
            features when omitted.
        at: ``"interior"``, where no sample is near a kink, or ``"boundary"``, where the
            neuron is at a kink along which the loss falls fastest: ``edit.direction``
            then leads there. Needs ``loss_fn``.
        activation: What to insert; that of the layer when omitted, or ReLU.
        construction: ``"features"`` inserts neurons that carry the features, and keeps
            all of them; ``"preactivations"`` those that carry what is read from them,
            which may be less. ``"auto"`` is the first where the width allows it.
        into: The path of the layer that is to read the inserted one, if several
            read the features.
        segment_radius: Half the length of the segment that smooth activations use.

    Returns:
        The deeper model and what is proved of it. The given model stays as it is.

    Raises:
        LayerError: If there is no such layer, or it is not called exactly once.
        EditError: If something stands in the way of the edit; it is named.
        NonFiniteError: If weights, inputs or features hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.
        LossError: If the loss function gives no scalar.
        ValueError: If an argument is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
        >>> edit = deepen(model, after="0", data=data, width=4)
        >>> [name for name, _ in edit.model.named_children()]
        ['0', '1', '0_deeper', '0_deeper_act', '2']
        >>> edit.proof.output_change < 1e-6, edit.proof.manifold_dimension
        (True, 18)
    """
    one_of("at", at, PLACES)
    one_of("construction", construction, CONSTRUCTIONS)
    paths = [after] if isinstance(after, str) else list(after)
    if not paths:
        raise ValueError("`after` must name at least one layer; got none.")
    if at == "boundary" and (loss_fn is None or len(paths) > 1):
        raise ValueError(
            "A lift to the boundary is chosen by the loss, one layer at a time; pass "
            f"`loss_fn`, and one path; got {loss_fn!r} and {len(paths)} paths."
        )
    held = Data(data, model)
    plan = _Plan(held, width, activation, construction, into, segment_radius)
    current, lifts, notes = model, list[Lift](), list[str]()
    found: Boundary | None = None
    for path in paths:
        towards = loss_fn if at == "boundary" else None
        current, lift, more, found = plan.lifted(current, path, towards)
        lifts.append(lift)
        notes += [note for note in more if note not in notes]
    proof = proved(model, current, lifts, held, loss_fn, found, notes)
    direction = {} if found is None else found.direction
    return Edit(current, proof, _what(paths, lifts), tuple(lifts), direction)


def proved(
    before: nn.Module,
    after: nn.Module,
    lifts: Sequence[Lift],
    data: Data,
    loss_fn: LossFunction | None = None,
    boundary: Boundary | None = None,
    notes: Sequence[str] = (),
) -> LiftProof:
    """Measure a lifted model against the one that it is of.

    Raises:
        EditError: If a pre-activation is off its affine piece, or outputs differ by
            more than rounding though they must not.
    """
    margins = Margins(after, lifts)
    change = changed(before, after, data, margins.looking)
    exact = all(lift.piece.exact for lift in lifts)
    if boundary is None and not margins.margin > 0:
        raise EditError(
            "All inserted pre-activations must lie inside the affine piece; rounding "
            f"moves one out of it, by {-margins.margin:.3g}. Normalise the data or the "
            "layer before, or use a model in float64."
        )
    if exact or not math.isfinite(change.largest):
        check_outputs(after, change)
    dimension = sum(lift.dimension for lift in lifts)
    regular = exact and boundary is None and not any(x.added_bias for x in lifts)
    norms = [
        None if loss_fn is None else gradient_norm(model, loss_fn, data)
        for model in (before, after)
    ]
    return LiftProof(
        exact=exact,
        everywhere=False,
        samples=change.samples,
        output_change=change.largest,
        output_scale=change.scale,
        gradient_before=norms[0],
        gradient_after=norms[1],
        inertia_shift=(0, dimension, 0) if regular else None,
        margin=margins.margin,
        radius=margins.radius,
        manifold_dimension=dimension,
        slope=None if boundary is None else boundary.slope,
        unit_slope=None if boundary is None else boundary.unit_slope,
        caveats=(*_caveats(lifts, boundary), *notes),
    )


def _caveats(lifts: Sequence[Lift], boundary: Boundary | None) -> list[str]:
    exact = all(lift.piece.exact for lift in lifts)
    caveats = [UNREGULARISED, DATA_ONLY, *([] if exact else [SMOOTH])]
    if boundary is not None:
        caveats += [BOUNDARY, *([NO_DESCENT] if boundary.slope >= 0 else [])]
    return caveats + ([NEW_BIAS] if any(lift.added_bias for lift in lifts) else [])


class _Plan:
    """What to insert, wherever it goes."""

    def __init__(
        self,
        data: Data,
        width: int | None,
        activation: nn.Module | None,
        construction: str,
        into: str | None,
        radius: float,
    ) -> None:
        self._data, self._into, self._radius = data, into, radius
        self._width = None if width is None else at_least("width", width, 1)
        self._activation, self._construction = activation, construction

    def lifted(
        self, model: nn.Module, after: str, loss_fn: LossFunction | None
    ) -> tuple[nn.Module, Lift, tuple[str, ...], Boundary | None]:
        graph = Graph(model, given=self._data.names)
        layer = graph.layer(after)
        reader = self._reader(layer)
        graph.check_own(reader)
        _check_geometry(reader.module)
        how, width = self._shape(reader)
        activation = self._inserted_activation(layer).to(reader.module.weight)
        piece = self._piece(activation)
        into, out = ranges(model, reader.path, self._data)
        weights = _constructed(reader.module, piece, how, width, into, out)
        found: Boundary | None = None
        name = graph.name_for(after, reader)
        if loss_fn is not None:
            found = boundary_lift(
                model, reader, weights, piece, activation, self._data, loss_fn, name
            )
            weights = found.weights
        first, second, dimension = _modules(reader.module, weights, piece, how)
        spare = sum(p.numel() for p in activation.parameters())
        fresh = reader.module.bias is None
        normed = fresh and _is_norm(graph.follower(reader))
        # A bias before a normalisation can be traded for the one in it.
        spare += len(reader.module.weight) if normed else 0
        lift = Lift(
            name, f"{name}_act", reader.path, piece, how, dimension + spare,
            fresh and not normed, found is not None,
        )  # fmt: skip
        inserted = {lift.path: first, lift.activation: activation}
        return graph.inserted(reader, inserted, second), lift, graph.notes, found

    def _reader(self, layer: Layer) -> Affine:
        fitting = [c for c in layer.consumers if self._into in (None, c.path)]
        if len(fitting) == 1:
            return fitting[0]
        names = listed([repr(c.path) for c in layer.consumers])
        if self._into is not None:
            raise EditError(
                f"`into` must be a linear layer or convolution that reads {layer.path!r}; "
                f"got {self._into!r}. Those are: {names or 'none'}."
            )
        if fitting:
            raise EditError(
                f"One layer must read the inserted one; {layer.path!r} is read by {names}. "
                "Say which, with `into=`."
            )
        raise EditError(
            "A linear layer or convolution must read the features after which a layer "
            f"is inserted; those of {layer.path!r} are read by "
            f"{listed(layer.others) or 'nothing'}. Choose a layer whose next reader, "
            "past its activation and batch normalisation, is an nn.Linear or nn.Conv2d."
        )

    def _shape(self, reader: Affine) -> tuple[str, int]:
        """Return the construction and the width."""
        outs, ins = reader.module.weight.shape[:2]
        # Zeros beyond the border would have to become the image of zero.
        padded = _pads_zeros(reader.module)
        least = {"features": ins, "preactivations": outs}
        if padded:
            _check_padded(reader, self._construction)
            del least["features"]
        if self._construction != "auto":
            least = {self._construction: least[self._construction]}
        width = self._width or least.get("features", least.get("preactivations", 1))
        for how, needed in least.items():
            if width >= needed:
                return how, width
        raise EditError(
            f"The inserted width must be at least {min(least.values())} before "
            f"{reader.path!r}, which reads {ins} features with {outs} neurons; got "
            f"{width}. Fewer cannot carry what passes."
        )

    def _inserted_activation(self, layer: Layer) -> nn.Module:
        given = self._activation
        if given is None:
            given = nn.ReLU() if layer.activation is None else layer.activation
        copy = out_of_place(given)
        if isinstance(copy, nn.PReLU) and copy.num_parameters > 1:
            # Slopes of other channels; where the layer is used they are not.
            mean = float(copy.weight.detach().mean())
            copy = nn.PReLU(1, mean)
        return copy

    def _piece(self, activation: nn.Module) -> Piece:
        pieces = affine_pieces(activation)
        return pieces[0] if pieces else segment(activation, self._radius)


def _constructed(
    module: nn.Linear | nn.Conv2d,
    piece: Piece,
    how: str,
    width: int,
    inputs: Range,
    outputs: Range,
) -> Weights:
    """Return the lift that moves all neurons into the piece by one scale and shift."""
    weight = module.weight.detach().double()
    carried = inputs if how == "features" else outputs
    scale, shift = placement(piece, float(carried.low.min()), float(carried.high.max()))
    outs, ins = weight.shape[:2]
    bias = weight.new_full((width,), resting(piece))
    back = 1 / (piece.slope * scale)
    if how == "features":
        into, out = weight.new_zeros(width, ins), weight.new_zeros(outs, width)
        into, out = _pointwise(into, module), out.reshape(outs, width, *_ones(module))
        out = out.expand(outs, width, *weight.shape[2:]).clone()
        into[:ins].flatten(1).fill_diagonal_(scale)
        out[:, :ins] = weight * back
        bias[:ins] = shift
        return Weights(into, bias, out)
    into = weight.new_zeros(width, *weight.shape[1:])
    into[:outs] = weight * scale
    out = weight.new_zeros(outs, width).fill_diagonal_(back)
    bias[:outs] = scale * _bias(module) + shift
    return Weights(into, bias, _pointwise(out, module))


def _modules(
    module: nn.Linear | nn.Conv2d, weights: Weights, piece: Piece, how: str
) -> tuple[nn.Module, nn.Module, int]:
    """Return the inserted layer, its reader, and the dimension of the set of lifts."""
    dtype = module.weight.dtype
    into, bias, out = (
        w.to(dtype).double() for w in (weights.into, weights.bias, weights.out)
    )
    # Of the rounded weights, so that this bias makes up for their rounding.
    last = Weights(into, bias, out).reader_bias(piece, _bias(module))
    first = like(module, into, bias, geometry=how == "preactivations")
    second = like(module, out, last, geometry=how == "features")
    new = sum(w.numel() for w in (into, bias, out, last))
    return first, second, new - module.weight.numel() - len(last)


def _bias(module: nn.Linear | nn.Conv2d) -> Tensor:
    if module.bias is None:
        return module.weight.new_zeros(len(module.weight)).detach().double()
    return module.bias.detach().double()


def _ones(module: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    return (1,) * (module.weight.ndim - 2)


def _pointwise(weight: Tensor, module: nn.Linear | nn.Conv2d) -> Tensor:
    return weight.reshape(*weight.shape, *_ones(module))


def _is_norm(module: nn.Module | None) -> bool:
    # A shift before a normalisation has the gradient of the shift after it, scaled.
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine


def _pads_zeros(module: nn.Linear | nn.Conv2d) -> bool:
    if isinstance(module, nn.Linear) or module.padding_mode != "zeros":
        return False
    if isinstance(module.padding, str):
        return module.padding != "valid" and math.prod(module.kernel_size) > 1
    return any(module.padding)


def _check_padded(reader: Affine, construction: str) -> None:
    if construction == "features":
        raise EditError(
            f"The convolution {reader.path!r} pads with zeros: an inserted layer that "
            "carries the features would be read as other values at the border. Use "
            "`construction='preactivations'`, which is exact there."
        )


def _check_geometry(module: nn.Linear | nn.Conv2d) -> None:
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        raise EditError(
            f"The convolution that reads the inserted layer must have one group; it has "
            f"{module.groups}. Choose another layer."
        )


def _what(paths: Sequence[str], lifts: Sequence[Lift]) -> str:
    named = ", ".join(
        f"{lift.path!r} after {path!r}" for path, lift in zip(paths, lifts, strict=True)
    )
    return f"Inserted {named}."
