"""The calls that a model makes, as ``torch.fx`` sees them."""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from layerpeel._checks import EditError


class Tracer(fx.Tracer):
    """Remembers what each module returned, also of those that it looks into."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, fx.Node] = {}
        self.calls: Counter[str] = Counter()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - a module returns anything
        """Note what a module returns, as it is called."""
        path = self.path_of_module(m)
        value = super().call_module(m, forward, args, kwargs)
        self.calls[path] += 1
        if isinstance(value, fx.Proxy):
            self.returned[path] = value.node
        return value


def traced(tracer: Tracer, model: nn.Module, given: Collection[str]) -> fx.Graph:
    """Return the calls of a model.

    Args:
        tracer: What follows them.
        model: The model.
        given: The names of arguments that are given; others stay at their defaults.

    Raises:
        EditError: If they depend on values.
    """
    # Arguments with defaults stay at them: a proxy is never None, and would mislead.
    defaults = {
        name: parameter.default
        for i, (name, parameter) in enumerate(
            inspect.signature(model.forward).parameters.items()
        )
        if parameter.default is not inspect.Parameter.empty
        and name not in given
        and (i > 0 or given)
    }
    try:
        graph = tracer.trace(model, concrete_args=defaults or None)
    except Exception as error:  # of any kind: tracing runs the model's own code
        raise EditError(_untraceable(model, error)) from error
    for node in graph.nodes:
        name = str(node.target).rpartition("_")[0]
        if node.op == "placeholder" and name in defaults:
            node.target = name
    return graph


def _untraceable(model: nn.Module, error: Exception) -> str:
    inside = (str(Path(torch.__file__).parent), __file__)
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if not f.filename.startswith(inside)]
    where = f" at {mine[-1].line!r}, line {mine[-1].lineno}" if mine else ""
    return (
        f"The forward pass of {type(model).__name__} must be traceable by torch.fx; it "
        f"stops{where}: {type(error).__name__}: {error}. Branches and loops must not "
        "depend on the values of tensors: move such code into a module of its own and "
        "edit what it is called from, or write the branch with `torch.where`."
    )
