"""Models that are an ``nn.Sequential`` down to some place, and remain one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn


def is_sequence(model: nn.Module, paths: Iterable[str]) -> bool:
    """Whether all containers of some modules are an ``nn.Sequential``."""
    parents = {parent for path in paths for parent in _parents(path)}
    return all(type(model.get_submodule(p)) is nn.Sequential for p in parents)


def splice(model: nn.Module, path: str, modules: Mapping[str, nn.Module]) -> None:
    """Put modules before another one into their container.

    Args:
        model: The model; it is changed.
        path: The module before which they go.
        modules: What to put there, in order, by path.
    """
    parent, _, last = path.rpartition(".")
    container = model.get_submodule(parent)
    children = list(container.named_children())
    for name, _ in children:
        delattr(container, name)
    for name, child in children:
        if name == last:
            for new, module in modules.items():
                container.add_module(new.rpartition(".")[2], module)
        container.add_module(name, child)


def _parents(path: str) -> list[str]:
    parts = path.split(".")[:-1]
    return [".".join(parts[:i]) for i in range(len(parts) + 1)]
