"""Which functions of a forward pass read the output of a module."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from layerpeel._checks import ShapeError
from layerpeel.measurement.sources.nested import tensors

# Functions of each entry by itself, without the underscore of those in place.
ACTIVATIONS = frozenset(
    (
        *("celu", "clamp", "clamp_max", "clamp_min", "elu", "gelu", "hardshrink"),
        *("hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid"),
        *("logsigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid"),
        *("silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
        "threshold",
    )
)

# They return the same values in other memory. Views are known by their memory.
_COPIES = frozenset(
    (
        *("bfloat16", "clone", "contiguous", "cpu", "cuda", "double", "flatten"),
        *("float", "half", "ravel", "reshape", "to", "type", "type_as"),
    )
)

# They return a tensor and read no values.
_SHAPES_ONLY = frozenset(
    (
        *("empty_like", "full_like", "new_empty", "new_full", "new_ones"),
        *("new_tensor", "new_zeros", "ones_like", "rand_like", "randint_like"),
        *("randn_like", "zeros_like"),
    )
)

# Operators, those in place and those that are asked second too.
_OPERATOR = re.compile(r"__[ir]?(add|sub|mul|truediv|div|matmul|pow|getitem)__")

_Key: TypeAlias = tuple[int, ...]
_Replace: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Reader:
    """A function that reads the features of a layer.

    Attributes:
        name: The path of the module that calls it, if that has no others inside; else
            the function's name.
        function: The function's name.
        weight: The matrix of a linear function, as it is in the model; else ``None``.
        bias: Its bias, if it has one.
        output: A copy of what a linear function returned; else ``None``.
        whole: Whether a linear function reads one row of features per sample, with all
            features in their order.
    """

    name: str
    function: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    output: Tensor | None = None
    whole: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether it is :math:`W h + b`."""
        return self.weight is not None


class Value:
    """Features at one place of the network, and what happened to them there."""

    def __init__(self, features: Tensor) -> None:
        # A copy: later functions may work in place.
        self.features = features.detach().clone()
        self.readers: list[Reader] = []
        self.after: Value | None = None

    @property
    def activation(self) -> str | None:
        """The name of the activation that alone reads them, if one does."""
        alone = len(self.readers) == 1 and self.after is not None
        return self.readers[0].function if alone else None


class Watch(TorchFunctionMode):
    """Sees each function of a forward pass, and knows which of them read a layer.

    Args:
        model: The model.
        module: The module whose output is the layer.
        function: What to put in place of the features; they stay when omitted.
        activation: The name of the activation whose output is replaced; that of the
            module if ``None``.

    Attributes:
        value: The output of the module, once it was called.
        calls: How often it was called.
        replaced: Whether the features were replaced.
        failure: The error that the function raised, if any: hooks do not raise it, since
            a model might catch it.
    """

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        function: _Replace | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self._model, self._module = model, module
        self._function, self._activation = function, activation
        self.value: Value | None = None
        self.calls, self.replaced = 0, False
        self.failure: Exception | None = None
        self._inside: list[str] = []
        # By memory; with the tensors, so that their memory is not used again.
        self._known: dict[_Key, Value] = {}
        self._alive: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def begin(self) -> None:
        """Attach the hooks."""
        for path, module in self._model.named_modules():
            name = "" if any(True for _ in module.children()) else path
            self._handles += [
                module.register_forward_pre_hook(self._entering(name)),
                module.register_forward_hook(self._leaving(module)),
            ]
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Remove the hooks, and let go of the network's tensors."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._known, self._alive, self._handles = {}, [], []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch gives them
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Run a function, and note it if it reads the layer."""
        kwargs = kwargs or {}
        given = [
            t for t in tensors((*args, *kwargs.values())) if _key(t) in self._known
        ]
        if not given:
            return func(*args, **kwargs)
        before = [_version(t) for t in given]
        values = list(dict.fromkeys(self._known[_key(t)] for t in given))
        keys = [_key(t) for t in given]
        result = func(*args, **kwargs)
        changed = [
            k for k, t, v in zip(keys, given, before, strict=True) if _version(t) != v
        ]
        name = _name(func)
        for value in values:
            result = self._note(value, name, args, kwargs, result, changed)
        return result

    def _note(
        self,
        value: Value,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,  # noqa: ANN401 - whatever the function returned
        changed: list[_Key],
    ) -> Any:  # noqa: ANN401 - the same, or what replaces it
        output = next(tensors(result), None)
        if not changed and (output is None or name in _SHAPES_ONLY):
            return result
        if not changed and self._is_same(value, name, output):
            self._know(output, value)
            return result
        value.readers.append(self._reader(value, name, args, kwargs, output))
        for key in changed:
            self._known.pop(key, None)
        if value is not self.value or name not in ACTIVATIONS or output is None:
            return result
        return self._activated(value, name, output, in_place=bool(changed))

    def _activated(
        self, value: Value, name: str, output: Tensor, *, in_place: bool
    ) -> Tensor:
        """Note what an activation returned, and put other features in its place."""
        if value.after is not None or output.numel() != value.features.numel():
            return output
        if self._function is not None and name == self._activation:
            return self._replacing(output, in_place=in_place)
        value.after = Value(output)
        self._know(output, value.after)
        return output

    def _reader(
        self,
        value: Value,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Tensor | None,
    ) -> Reader:
        path = self._inside[-1] if self._inside else ""
        if name != "linear" or output is None:
            return Reader(path or name, name)
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | {**kwargs}
        x, weight, bias = (named.get(key) for key in ("input", "weight", "bias"))
        # As a weight or bias, features are read, but not by a linear map of them.
        if x is None or weight is None or self._known.get(_key(x)) is not value:
            return Reader(path or name, name)
        whole = _is_whole(x, value.features)
        return Reader(path or name, name, weight, bias, output.clone(), whole)

    def _is_same(self, value: Value, name: str, output: Tensor | None) -> bool:
        """Whether a function returned the features themselves, in some shape."""
        if output is None or output.numel() != value.features.numel():
            return False
        if not output.is_floating_point():
            return False
        return self._known.get(_key(output)) is value or name in _COPIES

    def _know(self, tensor: Tensor | None, value: Value) -> None:
        if tensor is not None:
            self._known[_key(tensor)] = value
            self._alive.append(tensor)

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self._inside.append(name)

        return hook

    def _leaving(self, module: nn.Module) -> Callable[..., Any]:
        def hook(_: nn.Module, __: object, result: Any) -> Any:  # noqa: ANN401
            if self._inside:
                self._inside.pop()
            return self._returned(result) if module is self._module else None

        return hook

    def _returned(self, result: Any) -> Any:  # noqa: ANN401 - a module returns anything
        """Note what the module returned; return it with other features, if so."""
        self.calls += 1
        output = next(tensors(result), None)
        if output is None or not output.is_floating_point() or self.calls > 1:
            return None
        if self._function is not None and self._activation is None:
            return _with_first(result, self._replacing(output, in_place=False))
        self.value = Value(output)
        self._know(output, self.value)
        return None

    def _replacing(self, features: Tensor, *, in_place: bool) -> Tensor:
        self.replaced = True
        new = self._edited(features)
        # Whoever holds the tensor that was overwritten reads the new features too.
        return features.copy_(new) if in_place else new

    def _edited(self, features: Tensor) -> Tensor:
        if self._function is None:
            return features
        try:
            new = self._function(features.detach())
            if new.shape == features.shape:
                return new.to(features)
            raise ShapeError(
                "What replaces features must have their shape, "
                f"{tuple(features.shape)}; got {tuple(new.shape)}."
            )
        except Exception as error:  # raised again after the pass
            self.failure = error
            return features


def _key(tensor: Tensor) -> _Key:
    """Return what tensors with the same values in the same memory share."""
    if tensor.layout != torch.strided:
        return (id(tensor),)
    return tensor.data_ptr(), tensor.numel(), tensor.element_size()


def _version(tensor: Tensor) -> int:
    """Return a number that grows when the tensor is written to, where there is one."""
    return 0 if tensor.is_inference() else tensor._version


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    # Properties, such as `x.data` and `x.T`, are all called `__get__`.
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return _OPERATOR.sub(r"\1", name).strip("_")


def _is_whole(inputs: Tensor, features: Tensor) -> bool:
    rows = features.reshape(len(features), -1)
    return inputs.shape == rows.shape and torch.equal(inputs.to(rows), rows)


def _with_first(value: Any, new: Tensor) -> Any:  # noqa: ANN401 - keeps its type
    """Return a nested value with another tensor in place of its first one."""
    if isinstance(value, Tensor):
        return new
    if isinstance(value, Mapping):
        pairs: Any = list(value.items())
    else:
        pairs = list(enumerate(value))
    for key, item in pairs:
        if next(tensors(item), None) is not None:
            return _put(value, key, _with_first(item, new))
    return value


def _put(value: Any, key: Any, item: Any) -> Any:  # noqa: ANN401 - keeps its type
    if isinstance(value, Mapping):
        # Outputs of transformers are mappings with a class of their own.
        changed: Any = copy(value)
        changed[key] = item
        return changed
    items = [item if i == key else old for i, old in enumerate(value)]
    if hasattr(value, "_replace"):
        return type(value)(*items)
    return type(value)(items)
