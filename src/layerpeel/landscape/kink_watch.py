"""Watches a forward pass for functions with kinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from layerpeel.landscape.comparisons import Comparison, comparison

Note = Callable[[str, Comparison], None]


class KinkWatch(TorchFunctionMode):
    """Tells what all functions with kinks compare in a forward pass and its loss.

    Args:
        model: The model that is run.
        note: Is told where a call is and what it compares, before the call.
    """

    def __init__(self, model: nn.Module, note: Note) -> None:
        super().__init__()
        self._model, self._note = model, note
        self._inside: list[str] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch what is run within the context."""
        handles = list(self._hooks())
        try:
            with self:
                yield
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
        """Look at the arguments, and call the function."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        # Before the call, which may work in place.
        found = comparison(name, args, kwargs)
        if found is not None:
            self._note(f"{self._place} ({name})", found)
        return func(*args, **kwargs)

    @property
    def _place(self) -> str:
        if not self._inside:
            return "the loss"
        return self._inside[-1] or "the model"

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
