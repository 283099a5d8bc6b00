"""Which layers to look at: all of them, some paths, or some types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

from torch import nn

from layerpeel._checks import LayerError, listed, one_of
from layerpeel.measurement.layers.nonlinearity import may_be_nonlinear

Layers: TypeAlias = str | type[nn.Module] | Sequence[str] | Sequence[type[nn.Module]]
"""``"all"``, paths, or types of modules."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Modules to look at.

    Attributes:
        modules: The modules, by the path they are called by in results.
        by: How they were chosen: ``"all"``, ``"paths"`` or ``"types"``.
    """

    modules: Mapping[str, nn.Module]
    by: str


def choose_layers(model: nn.Module, layers: Layers) -> Choice:
    """Find the modules that an argument ``layers`` stands for.

    Args:
        model: The model.
        layers: ``"all"`` for every leaf module with parameters and every nonlinearity;
            a list of paths; or one or several types, whose instances are taken.

    Raises:
        LayerError: If a path leads nowhere or twice to the same module, or there is no
            module of the kind.
        ValueError: If ``layers`` is something else.
    """
    if isinstance(layers, str):
        if layers != "all" and layers in dict(model.named_modules()):
            raise ValueError(
                f"`layers` must be 'all', a list of paths, or types of modules; got "
                f"{layers!r}. Pass a list: `layers=[{layers!r}]`."
            )
        one_of("layers", layers, ("all",))
        return _all_of(model)
    wanted = [layers] if isinstance(layers, type) else list(layers)
    if wanted and all(isinstance(item, str) for item in wanted):
        return Choice(_at_paths(model, [str(item) for item in wanted]), "paths")
    if wanted and all(_is_module_type(item) for item in wanted):
        return _of_types(
            model, tuple(item for item in wanted if isinstance(item, type))
        )
    raise ValueError(
        "`layers` must be 'all', a list of paths, or types of torch modules, and name at "
        f"least one; got {layers!r}."
    )


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every path that leads to a module."""
    pairs = model.named_modules(remove_duplicate=False)
    return [path for path, found in pairs if found is module]


def _is_module_type(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, nn.Module)


def _all_of(model: nn.Module) -> Choice:
    leaves = {p: m for p, m in model.named_modules() if not list(m.children())}
    chosen = {
        path: module
        for path, module in leaves.items()
        if list(module.parameters()) or may_be_nonlinear(module)
    }
    if not chosen:
        raise LayerError(
            "`layers='all'` needs a model of torch modules with parameters or "
            f"nonlinearities; this {type(model).__name__} has none."
        )
    return Choice(chosen, "all")


def _of_types(model: nn.Module, types: tuple[type[nn.Module], ...]) -> Choice:
    chosen: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, types)
    }
    if chosen:
        return Choice(chosen, "types")
    present = sorted({type(m).__name__ for m in model.modules()})
    raise LayerError(
        f"`layers` must name types that the model has; it has no "
        f"{listed([kind.__name__ for kind in types])}, but {listed(present)}."
    )


def _at_paths(model: nn.Module, paths: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    unknown = [path for path in paths if path not in modules]
    if unknown:
        raise LayerError(_unknown(unknown, list(modules)))
    seen: dict[int, str] = {}
    for path in paths:
        if id(modules[path]) in seen:
            raise LayerError(
                f"`layers` must name each module once; {seen[id(modules[path])]!r} and "
                f"{path!r} are the same one. Leave one of them out."
            )
        seen[id(modules[path])] = path
    return {path: modules[path] for path in paths}


def _unknown(unknown: Sequence[str], paths: Sequence[str]) -> str:
    hints = []
    for path in unknown:
        close = get_close_matches(path, paths, n=3)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        hints.append(f"{path!r}{hint}")
    return (
        f"`layers` must hold paths of modules; the model has none at {listed(hints)}. "
        f"Its modules are {listed([repr(p) for p in paths if p], 16)}."
    )
