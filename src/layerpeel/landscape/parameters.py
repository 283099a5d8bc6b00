"""The trainable parameters of a model as one flat vector, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from layerpeel._checks import NonFiniteError, ShapeError, StateError, listed


@dataclass(frozen=True)
class Parameters:
    """Where each trainable parameter of a model is in the flat vector.

    A weight that is tied is one parameter, under the first of its names. Frozen ones
    (``requires_grad=False``) are constants, and are not in the vector.

    Attributes:
        names: Their names, in the order of the vector.
        shapes: Their shapes.

    Example:
        >>> parameters = Parameters.of(nn.Linear(2, 3))
        >>> parameters.names, parameters.size, parameters.slices["bias"]
        (('weight', 'bias'), 9, slice(6, 9, None))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Parameters:
        """Return the layout of a model's trainable parameters.

        Raises:
            ValueError: If it is no module, has none, or one is complex or not
                initialised.
            NonFiniteError: If one, frozen ones included, holds NaN or infinity.
        """
        # A plain function, say: annotations are not checked where users call.
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"`model` must be a torch.nn.Module; got a {type(model).__name__}."
            )
        for name, parameter in model.named_parameters():
            _check(name, parameter)
        trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not trainable:
            raise ValueError(
                "`model` must have trainable parameters; it has none. Set "
                "`requires_grad` on those that are the variables."
            )
        names, parameters = zip(*trainable, strict=True)
        return cls(tuple(names), tuple(tuple(p.shape) for p in parameters))

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter is in the vector, by name."""
        ends = accumulate(map(prod, self.shapes), initial=0)
        return {
            name: slice(*pair)
            for name, pair in zip(self.names, pairwise(ends), strict=True)
        }

    @property
    def size(self) -> int:
        """The number of variables :math:`p`."""
        return sum(map(prod, self.shapes))

    def read(self, model: nn.Module) -> Float64[Tensor, " p"]:
        """Return the vector of a model, in float64 on the CPU."""
        found = dict(model.named_parameters())
        return torch.cat(
            [found[n].detach().to("cpu", torch.float64).flatten() for n in self.names]
        )

    def write(self, model: nn.Module, vector: Float64[Tensor, " p"]) -> None:
        """Put a vector into a model, in the model's own dtype."""
        found = dict(model.named_parameters())
        with torch.no_grad():
            for name, values in self.unflat(vector).items():
                found[name].copy_(values)

    def unflat(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parts of a vector under the names of the parameters.

        They are views, through which functions of the vector can be differentiated.
        """
        parts = torch.split(vector, [prod(shape) for shape in self.shapes])
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def flat(self, direction: Mapping[str, Tensor] | Tensor) -> Float64[Tensor, " p"]:
        """Return a direction as a vector in float64 on the CPU.

        Args:
            direction: The vector itself, or tensors by name: names that are left out do
                not move.

        Raises:
            ValueError: If it is neither of both.
            StateError: If a name belongs to no trainable parameter.
            ShapeError: If a tensor, or the vector, has another shape.
            NonFiniteError: If it holds NaN or infinity.
        """
        if isinstance(direction, Tensor):
            vector = self._checked_vector(direction)
        else:
            _check_tensors(direction)
            self._check_names(direction)
            vector = torch.zeros(self.size, dtype=torch.float64)
            for name, values in direction.items():
                vector[self.slices[name]] = values.detach().to(vector).flatten()
        if not bool(vector.isfinite().all()):
            raise NonFiniteError(
                "A direction must be finite; it holds NaN or infinity."
            )
        return vector

    def _checked_vector(self, vector: Tensor) -> Tensor:
        if vector.shape != (self.size,):
            raise ShapeError(
                f"A flat direction must have shape ({self.size},), one entry per "
                f"trainable parameter; got {tuple(vector.shape)}."
            )
        return vector.detach().to("cpu", torch.float64, copy=True)

    def _check_names(self, direction: Mapping[str, Tensor]) -> None:
        unknown = [name for name in direction if name not in self.slices]
        if unknown:
            raise StateError(
                "A direction must have names of trainable parameters; "
                f"{listed(list(map(repr, unknown)))} is none. They are "
                f"{listed(list(map(repr, self.names)), 16)}."
            )
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name in direction and tuple(direction[name].shape) != shape:
                raise ShapeError(
                    f"The direction of {name!r} must have its shape, {shape}; got "
                    f"{tuple(direction[name].shape)}."
                )


def _check_tensors(direction: object) -> None:
    if direction is None:
        raise ValueError(
            "A direction must be a vector, or tensors by name; got None. A point without "
            "proved negative curvature has no `escape_direction`."
        )
    values = direction.values() if isinstance(direction, Mapping) else [direction]
    wrong = [value for value in values if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            "A direction must be a vector, or tensors by name; got a "
            f"{type(wrong[0]).__name__}. Make it one with `torch.as_tensor`."
        )


def _check(name: str, parameter: nn.Parameter) -> None:
    if is_lazy(parameter):
        raise ValueError(
            f"`model` must be initialised; {name!r} has no shape yet. Run the model on "
            "one batch first."
        )
    if parameter.is_complex():
        raise ValueError(f"`model` must have real parameters; {name!r} is complex.")
    bad = int((~parameter.detach().isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"The weights of `model` must be finite; {bad} of {parameter.numel()} values "
            f"of {name!r} are NaN or infinite. Go back to a checkpoint before them."
        )
