"""What to insert, and whether it fits where it is to go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from layerpeel._checks import EditError, at_least, listed
from layerpeel.edits.activations import Piece, affine_pieces, out_of_place, segment
from layerpeel.edits.data import Data
from layerpeel.edits.depth.boundary import Boundary, boundary_lift
from layerpeel.edits.depth.construction import built, constructed
from layerpeel.edits.depth.lift import Lift, groups_of
from layerpeel.edits.depth.reading import Reading, reading
from layerpeel.edits.depth.residual_block import ResidualBlock
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.loss import LossFunction

CONSTRUCTIONS = ("auto", "features", "preactivations")


@dataclass(frozen=True, eq=False)
class Lifted:
    """A model with one layer more.

    Attributes:
        model: The model.
        lift: The layer.
        reading: What the reader of the layer was seen to read before.
        notes: What the model does not keep of the one before.
        boundary: The choice of the lift, if it is at a boundary.
    """

    model: nn.Module
    lift: Lift
    reading: Reading
    notes: tuple[str, ...]
    boundary: Boundary | None = None


class Insertion:
    """What to insert, wherever it goes.

    Args:
        data: The data.
        width: The number of inserted neurons, if that is given.
        activation: The inserted activation, if that is given.
        construction: What the inserted neurons carry.
        into: The path of their reader, if that is given.
        radius: Half the length of the segment that smooth activations use.
        residual: Whether the inserted layer is a residual block.
    """

    def __init__(
        self,
        data: Data,
        width: int | None,
        activation: nn.Module | None,
        construction: str,
        into: str | None,
        radius: float,
        *,
        residual: bool,
    ) -> None:
        self._data, self._into, self._radius = data, into, radius
        self._width = None if width is None else at_least("width", width, 1)
        self._activation, self._construction = activation, construction
        self._residual = residual

    def lifted(
        self,
        model: nn.Module,
        after: str,
        *,
        loss_fn: LossFunction | None = None,
        keep: bool = False,
    ) -> Lifted:
        """Return a model with the layer inserted.

        Args:
            model: The model.
            after: The path of the layer after which to insert.
            loss_fn: Given if the lift is to be at a boundary.
            keep: Whether the reading may keep features and outputs.
        """
        graph = Graph(model, given=self._data.names)
        layer = graph.layer(after)
        reader = self._reader(layer)
        graph.check_own(reader)
        how, width = self._shape(reader)
        activation = self._inserted_activation(layer).to(reader.module.weight)
        piece = self._piece(activation)
        seen = reading(
            model, reader.path, self._data, output=how == "preactivations", keep=keep
        )
        weights = constructed(reader.module, piece, how, width, seen.range)
        found: Boundary | None = None
        name = graph.name_for(after, reader)
        if loss_fn is not None:
            found = boundary_lift(
                model,
                reader,
                weights,
                piece,
                how,
                activation,
                self._data,
                loss_fn,
                name,
            )
            weights = found.weights
        new = built(reader.module, weights, piece, how)
        inserted: dict[str, nn.Module] = {name: new.first, f"{name}_act": activation}
        paths = [name, f"{name}_act"]
        if self._residual:
            inserted = {name: ResidualBlock(new.first, activation)}
            paths = [f"{name}.linear", f"{name}.activation"]
        spare = sum(p.numel() for p in activation.parameters())
        fresh = reader.module.bias is None
        normed = fresh and _is_norm(graph.follower(reader))
        # A bias before a normalisation can be traded for the one in it.
        spare += len(reader.module.weight) if normed else 0
        lift = Lift(
            paths[0], paths[1], reader.path, piece, how, new.dimension + spare,
            fresh and not normed, found is not None,
        )  # fmt: skip
        edited = graph.inserted(reader, inserted, new.reader)
        return Lifted(edited, lift, seen, graph.notes, found)

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
        if self._residual:
            return "residual", self._residual_width(reader)
        groups = groups_of(reader.module)
        outs, ins = len(reader.module.weight), reader.module.weight.shape[1] * groups
        least = {"features": ins, "preactivations": outs}
        # Zeros beyond the border would have to become the image of zero.
        if _pads_zeros(reader.module):
            _check_padded(reader, self._construction)
            del least["features"]
        if self._construction != "auto":
            least = {self._construction: least[self._construction]}
        width = self._width or next(iter(least.values()))
        for how, needed in least.items():
            if width >= needed and width % groups == 0:
                return how, width
        several = f", and a multiple of its {groups} groups" if groups > 1 else ""
        raise EditError(
            f"The inserted width must be at least {min(least.values())} before "
            f"{reader.path!r}, which reads {ins} features with {outs} neurons{several}; "
            f"got {width}. Fewer cannot carry what passes."
        )

    def _residual_width(self, reader: Affine) -> int:
        if _pads_zeros(reader.module):
            _check_padded(reader, "features", "`residual=False`")
        ins = int(reader.module.weight.shape[1]) * groups_of(reader.module)
        if self._width not in (None, ins):
            raise EditError(
                "A residual block must have the width of the features that it adds to, "
                f"{ins} before {reader.path!r}; got {self._width}. Leave `width` out."
            )
        return ins

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
        pieces: Sequence[Piece] = affine_pieces(activation)
        if self._residual:
            # What is added must not take away what is there.
            pieces = [piece for piece in pieces if piece.slope > 0]
        return pieces[0] if pieces else segment(activation, self._radius)


def _is_norm(module: nn.Module | None) -> bool:
    # A shift before a normalisation has the gradient of the shift after it, scaled.
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return isinstance(module, kinds) and module.affine and module.bias.requires_grad


def _pads_zeros(module: nn.Linear | nn.Conv2d) -> bool:
    if isinstance(module, nn.Linear) or module.padding_mode != "zeros":
        return False
    if isinstance(module.padding, str):
        return module.padding != "valid" and math.prod(module.kernel_size) > 1
    return any(module.padding)


def _check_padded(
    reader: Affine,
    construction: str,
    otherwise: str = "`construction='preactivations'`",
) -> None:
    if construction == "features":
        raise EditError(
            f"The convolution {reader.path!r} pads with zeros: an inserted layer that "
            "carries the features would be read as other values at the border. Use "
            f"{otherwise}, which is exact there."
        )
