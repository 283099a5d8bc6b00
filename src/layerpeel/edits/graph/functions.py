"""Activations that a forward pass calls as functions, as the modules that do the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from layerpeel.edits.activations import is_elementwise

# Without the underscore of those in place.
_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "threshold": nn.Threshold,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
}


def activation_of(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    """Return the module that does what a node does, if that is a known activation.

    Args:
        node: A node of a traced model.
        modules: The modules of the model, by path.

    Returns:
        The module of the model itself, or a new one in place of a function.
    """
    if node.op == "call_module":
        module = modules[str(node.target)]
        return module if is_elementwise(module) else None
    name = function_name(node)
    kind = _MODULES.get(name)
    if kind is None or not node.args or node.op == "get_attr":
        return None
    try:
        return _built(kind, name, node)
    except (TypeError, ValueError):
        return None


def function_name(node: fx.Node) -> str:
    """Return the name of the function or method of a node, without underscores."""
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target)).strip("_")
    return str(node.target).strip("_") if node.op == "call_method" else ""


def _built(kind: type[nn.Module], name: str, node: fx.Node) -> nn.Module | None:
    given = _arguments(name, node)
    given.pop("inplace", None)
    if any(isinstance(value, fx.Node) for value in given.values()):
        return None
    accepted = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in given.items() if key in accepted})


def _arguments(name: str, node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a call after the first one, by name."""
    function: Callable[..., Any] | None = getattr(F, name, None)
    try:
        names = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # Built-in functions have no signature; those here have a documented one.
        names = _BUILT_IN.get(name, ["input"])
    return {**dict(zip(names[1:], node.args[1:], strict=False)), **node.kwargs}


_BUILT_IN: dict[str, list[str]] = {
    "gelu": ["input", "approximate"],
    "softplus": ["input", "beta", "threshold"],
    "softshrink": ["input", "lambd"],
    "hardshrink": ["input", "lambd"],
}


def is_view(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node returns the values it is given, in some shape."""
    if node.op == "call_module":
        return isinstance(
            modules[str(node.target)], (nn.Flatten, nn.Identity, *_DROPOUT)
        )
    return function_name(node) in _VIEWS or is_dropout(node)


def is_norm(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node calls a batch normalisation."""
    return node.op == "call_module" and isinstance(
        modules[str(node.target)], BATCH_NORMS
    )


def is_channelwise(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node treats each channel of its input by itself, all in the same way.

    Those are views, dropout, batch normalisation, pooling and upsampling; not layer or
    group normalisation, which mix channels.
    """
    if is_view(node, modules) or is_norm(node, modules):
        return True
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _POOLING)
    return function_name(node) in _POOLING_NAMES or _is_mean_over_places(node)


def _is_mean_over_places(node: fx.Node) -> bool:
    """Whether a node averages maps over their height and width."""
    if function_name(node) != "mean":
        return False
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(axes, tuple | list) and set(axes) in ({2, 3}, {-1, -2})


def is_dropout(node: fx.Node) -> bool:
    """Whether a node is a call of a dropout function."""
    return node.op == "call_function" and node.target in _DROPOUT_FUNCTIONS


def dropout_module(node: fx.Node) -> Callable[[Any], nn.Module]:
    """Return the kind of module that does what a dropout function does."""
    return _DROPOUT_FUNCTIONS[node.target]


def reads_shape(node: fx.Node) -> bool:
    """Whether a node reads the shape of its input, and no values."""
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in _SHAPE_NAMES
    return node.op == "call_method" and node.target in _SHAPE_NAMES


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLING = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
    *(nn.LPPool2d, nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)
_POOLING_NAMES = frozenset(
    (
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
        *("lp_pool2d", "interpolate", "upsample"),
    )
)
_SHAPE_NAMES = frozenset(("size", "shape", "dim", "ndim", "device", "dtype", "numel"))
_VIEWS = frozenset(("flatten", "view", "reshape", "contiguous", "clone", "ravel"))
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_DROPOUT_FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
}
