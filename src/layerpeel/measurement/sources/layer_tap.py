"""The features of any layer of a model, who reads them, and the model on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from torch import Tensor, nn

from layerpeel._checks import LayerError, listed
from layerpeel.measurement.sources.head import shown
from layerpeel.measurement.sources.reading import Reader, Watch


class LayerTap:
    """Looks at the features of a layer while a model runs, or puts others there.

    A path means the output of its module, after its activation where one follows:
    if nothing but an elementwise activation reads the output, be it a module or a
    function, the features are what that returns. An activation that is put together
    from several functions is not recognised; its module has a path of its own.

    Views, copies and dropout in eval mode are the features themselves, not consumers.
    What compiled or scripted modules do inside is not seen.

    Args:
        model: The model, in eval mode.
        path: The path of a module that is called once in a forward pass.

    Attributes:
        features: Those of the last forward pass, as they came.
        consumers: Who read them in that pass, in order; empty if nobody did.
        activation: The name of the activation that follows the module, if any.

    Raises:
        LayerError: If there is no such module. On leaving a context: if the module was
            called more than once or not at all, or its output holds no floating tensor.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
        >>> tap = LayerTap(model, "0")
        >>> with torch.no_grad(), tap:
        ...     _ = model(torch.ones(4, 2))
        >>> tap.activation, [reader.name for reader in tap.consumers]
        ('relu', ['2'])
        >>> with torch.no_grad(), tap.replacing(torch.zeros_like):
        ...     logits = model(torch.ones(4, 2))
        >>> torch.equal(logits, model[2].bias.expand(4, 2))
        True
    """

    features: Tensor
    consumers: tuple[Reader, ...]
    activation: str | None

    def __init__(self, model: nn.Module, path: str) -> None:
        modules = dict(model.named_modules(remove_duplicate=False))
        if path not in modules:
            raise LayerError(_unknown(path, list(modules)))
        self._model, self._path, self._module = model, path, modules[path]
        self._watch: Watch | None = None
        self._seen = False

    def __enter__(self) -> LayerTap:
        """Begin to look at a forward pass."""
        self._watch = Watch(self._model, self._module)
        self._watch.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Remove the hooks, and say what was seen."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.end()
        if kind is None:
            self._check_calls(watch)
            self._take(watch)

    @contextmanager
    def replacing(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Run the rest of the network on other features, within the context.

        Args:
            function: Takes the features as they come and returns those to put in their
                place, of the same shape.

        Raises:
            LayerError: If no forward pass was looked at before, or this one takes
                another way through the layer.
            ShapeError: If the function returns another shape.
        """
        if not self._seen:
            raise LayerError(
                "`replacing` must know where the features of the layer are: look at a "
                "forward pass first, in `with tap:`."
            )
        watch = Watch(self._model, self._module, function, self.activation)
        watch.begin()
        try:
            yield
        except BaseException as error:
            # The function's own error is the cause of whatever came after it.
            raise (watch.failure or error) from None
        finally:
            watch.end()
        if watch.failure is not None:
            raise watch.failure
        self._check_calls(watch)
        if not watch.replaced:
            raise LayerError(self._other_way("no activation"))

    def _take(self, watch: Watch) -> None:
        value = watch.value
        if value is None:
            raise LayerError(
                f"A layer must return features; {self._named()} returned no tensor of "
                "floating numbers. Choose another module."
            )
        activation = value.activation
        if self._seen and self.activation != activation:
            raise LayerError(self._other_way(activation or "no activation"))
        # What follows an activation is the features if nothing else reads its input.
        last = value if value.after is None or activation is None else value.after
        self.features, self.consumers = last.features, tuple(last.readers)
        self.activation, self._seen = activation, True

    def _check_calls(self, watch: Watch) -> None:
        if watch.calls == 1:
            return
        how = "not called" if not watch.calls else f"called {watch.calls} times"
        raise LayerError(
            f"A layer must be called once per forward pass; {self._named()} was {how}. "
            "Give each call a module of its own, or choose another module."
        )

    def _named(self) -> str:
        return f"{shown(self._path)} ({type(self._module).__name__})"

    def _other_way(self, got: str) -> str:
        return (
            f"A layer must be read alike in every forward pass; {self._named()} was "
            f"followed by {self.activation or 'no activation'}, and now by {got}. Does "
            "the model change its path with the data?"
        )


def _unknown(path: str, paths: list[str]) -> str:
    close = get_close_matches(path, paths, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"`layer` must be the path of a module; the model has none at {path!r}.{hint} "
        f"Its modules are {listed([repr(p) for p in paths if p], 16)}."
    )
