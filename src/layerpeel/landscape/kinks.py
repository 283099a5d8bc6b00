"""How close samples are to the kinks of a network's activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from layerpeel._tolerances import KINK_ULPS
from layerpeel.landscape.functional import differentiable
from layerpeel.landscape.risk import Risk

# Where each activation has no second derivative.
_FIXED: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "selu", "abs"), (0.0,)),
    # With alpha = 1 the slope of these goes on, but not their curvature.
    **dict.fromkeys(("elu", "celu"), (0.0,)),
    "relu6": (0.0, 6.0),
    **dict.fromkeys(("hardsigmoid", "hardswish"), (-3.0, 3.0)),
}

# Those that have them where their arguments say: names, positions and defaults.
_ARGUMENTS: dict[str, tuple[tuple[str, int, float | None], ...]] = {
    "hardtanh": (("min_val", 1, -1.0), ("max_val", 2, 1.0)),
    "clamp": (("min", 1, None), ("max", 2, None)),
    "clip": (("min", 1, None), ("max", 2, None)),
    "clamp_min": (("min", 1, None),),
    "clamp_max": (("max", 1, None),),
    "threshold": (("threshold", 1, 0.0),),
    "hardshrink": (("lambd", 1, 0.5),),
    "softshrink": (("lambd", 1, 0.5),),
}

_PAIRS = ("maximum", "minimum")


@dataclass(frozen=True)
class Kinks:
    """The smallest distance of a pre-activation from a kink, over samples and units.

    Where one is on a kink the risk has no Hessian, and what is computed as one belongs
    to one side. Ties in max-pooling, functions put together from comparisons, and what
    compiled or scripted modules do inside are not seen.

    Attributes:
        margin: The smallest distance; infinite for a smooth network.
        where: The path of the module that calls the activation of that distance, and
            the activation's name; empty for a smooth network.
        touching: How many pre-activations are on a kink, up to rounding.
        of: The number of pre-activations before functions with kinks.
    """

    margin: float
    where: str
    touching: int
    of: int

    @classmethod
    def empty(cls) -> Kinks:
        """Return what there is without data."""
        return cls(math.inf, "", 0, 0)

    def merge(self, other: Kinks) -> Kinks:
        """Return the kinks of both data sets."""
        nearer = self if self.margin <= other.margin else other
        return Kinks(
            nearer.margin,
            nearer.where,
            self.touching + other.touching,
            self.of + other.of,
        )

    @property
    def are_touched(self) -> bool:
        """Whether a pre-activation is on a kink."""
        return self.touching > 0

    @property
    def caution(self) -> str:
        """What to say about it; empty if no kink is touched."""
        if not self.are_touched:
            return ""
        return (
            f"{self.touching} of {self.of} pre-activations are on a kink, first at "
            f"{self.where}: the risk has no Hessian there, and what is computed holds "
            "for one side. Move the point, or remove neurons whose weights are zero."
        )


def kinks(risk: Risk) -> Kinks:
    """Return how close the samples of a risk are to kinks, at its own point.

    Activations are seen as modules and as functions, ``x.relu()`` too.

    Args:
        risk: The risk; see :meth:`Risk.of`.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> model[0].weight.data.fill_(1.0), model[0].bias.data.fill_(-2.0)
        (tensor([[1.]]), tensor([-2.]))
        >>> data = [(torch.tensor([[1.0], [2.25]]), torch.zeros(2, 1))]
        >>> kinks(Risk.of(model, nn.functional.mse_loss, data))
        Kinks(margin=0.25, where='1 (relu)', touching=0, of=2)
    """
    found = Kinks.empty()
    for batch in risk.batches:
        with differentiable(), torch.no_grad(), _Watch(risk.model).attached() as watch:
            risk.model(*batch.args, **batch.kwargs)
        found = found.merge(watch.found)
    return found


class _Watch(TorchFunctionMode):
    """Sees the arguments of all activations of a forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._inside: list[str] = []
        self.found = Kinks.empty()

    @contextmanager
    def attached(self) -> Iterator[_Watch]:
        handles = list(self._hooks())
        try:
            with self:
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch gives them
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        # Before the call, which may work in place.
        for distance, scale in _distances(name, args, kwargs):
            self._note(name, distance, scale)
        return func(*args, **kwargs)

    def _note(self, name: str, distance: Tensor, scale: float) -> None:
        if not distance.numel():
            return
        tolerance = KINK_ULPS * torch.finfo(distance.dtype).eps * scale
        path = self._inside[-1] if self._inside else ""
        seen = Kinks(
            float(distance.min()),
            f"{path or 'the model'} ({name})",
            int((distance <= tolerance).sum()),
            distance.numel(),
        )
        self.found = self.found.merge(seen)

    def _hooks(self) -> Iterator[RemovableHandle]:
        for path, module in self._model.named_modules():
            yield module.register_forward_pre_hook(self._entering(path))
            yield module.register_forward_hook(self._leaving, always_call=True)

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self._inside.append(path)

        return hook

    def _leaving(self, *_: object) -> None:
        self._inside.pop()


def _distances(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Tensor, float]]:
    """Yield the distance of each entry from its nearest kink, and the entries' size."""
    if name in _PAIRS or (name in ("max", "min") and _is_pair(args)):
        first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
        if first.is_floating_point():
            yield (first - second).abs(), float(first.abs().max() + second.abs().max())
        return
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return
    places = _places(name, args, kwargs)
    if places:
        nearest = torch.stack([(x - place).abs() for place in places]).amin(0)
        yield nearest, float(x.abs().max())


def _places(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[float | Tensor]:
    if name in _FIXED:
        return list(_FIXED[name])
    values = [
        args[position] if len(args) > position else kwargs.get(key, default)
        for key, position, default in _ARGUMENTS.get(name, ())
    ]
    found = [value for value in values if value is not None]
    return [*found, *(-v for v in found)] if name.endswith("shrink") else found


def _is_pair(args: tuple[Any, ...]) -> bool:
    return len(args) > 1 and isinstance(args[1], Tensor)
