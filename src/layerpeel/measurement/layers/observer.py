"""Hooks that look on while a model runs: one pass gives the profile of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from layerpeel._checks import (
    LayerError,
    NonFiniteError,
    at_least,
    class_indices,
    listed,
    one_of,
)
from layerpeel.measurement.layers.choice import Layers, choose_layers, names_of
from layerpeel.measurement.layers.layout import Layout, width_of
from layerpeel.measurement.layers.nonlinearity import fits, may_be_nonlinear, overwrites
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.layers.recorder import LayerRecorder, Settings
from layerpeel.measurement.sources.nested import tensors

MAPS: Mapping[str, str] = MappingProxyType(
    {
        "pooled": "the mean over positions: one feature per channel or token entry",
        "flattened": "every position by itself: one feature per entry of the map",
    }
)
"""What the features of maps and of tokens are, by name."""


class LayerObserver:
    r"""Accumulates the statistics of layers while a model runs.

    Within the context, hooks record the output of each layer, and the input of each
    elementwise nonlinearity. After each forward pass, :meth:`fold` says which classes
    its samples are of. The model is left as it was.

    Args:
        model: The model, in eval mode.
        layers: ``"all"`` for every leaf module with parameters and every nonlinearity;
            a list of paths, each of which means that module's output; or one or several
            types of modules. What cannot be measured, such as a module that is never
            called, is an error when named by its path, and left out, which
            ``LayerProfile.left_out`` says, when not.
        num_classes: The number of classes :math:`K`.
        maps: What the features of maps :math:`(B, C, H, W)` and tokens
            :math:`(B, T, d)` are: ``"pooled"`` for the mean over positions, ``"flattened"``
            for every position by itself. On/off patterns and linearity of pooled maps
            are those of each channel over all positions, before the mean.
        covariance_limit: The largest number of features whose covariance, and so whose
            ranks, are accumulated.
        class_names: Names of the classes, for messages.

    Raises:
        LayerError: If ``layers`` names what the model does not have.
        ValueError: If an argument is something else.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> observer = LayerObserver(model, [nn.ReLU], num_classes=2)
        >>> for x, y in [(torch.eye(2), torch.tensor([0, 1]))] * 2:
        ...     with torch.no_grad(), observer:
        ...         _ = model(x)
        ...     observer.fold(y)
        >>> observer.value().paths
        ('1',)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = "all",
        *,
        num_classes: int,
        maps: str = "pooled",
        covariance_limit: int = 2048,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self._settings = Settings(
            at_least("num_classes", num_classes, 1),
            one_of("maps", maps, MAPS),
            at_least("covariance_limit", covariance_limit, 0),
        )
        self._model = model
        self._choice = choose_layers(model, layers)
        self._class_names = class_names or [str(k) for k in range(num_classes)]
        self._layout = Layout(model)
        self._recorders: dict[str, LayerRecorder] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._left_out: dict[str, str] = {}
        self._handles: list[RemovableHandle] = []
        self._failed = False
        self._begin()

    def __enter__(self) -> LayerObserver:
        """Attach the hooks."""
        chosen = {id(module): path for path, module in self._choice.modules.items()}
        for module in self._model.modules():
            path = chosen.get(id(module))
            if path is not None and may_be_nonlinear(module) and overwrites(module):
                copier = self._copier(path)
                self._handles.append(
                    module.register_forward_pre_hook(copier, with_kwargs=True)
                )
            # All modules are watched: where features lie passes from one to the next.
            watcher = self._watcher(path)
            self._handles.append(
                module.register_forward_hook(watcher, with_kwargs=True)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._failed = self._failed or kind is not None

    def fold(self, labels: Tensor) -> None:
        """Say which classes the samples of the forward pass just made are of.

        Args:
            labels: Class indices in :math:`[0, K)`, with shape :math:`(B,)`.

        Raises:
            LayerError: If a layer was called more than once or not at all, gave no row
                per sample, or gave features of another shape than before.
            LabelError: If labels are no class indices.
        """
        try:
            labels = class_indices(labels.cpu(), self._settings.num_classes)
            self._check_calls()
            self._check_outputs(len(labels))
        except ValueError:
            self._failed = True
            raise
        for recorder in self._recorders.values():
            recorder.fold(labels)
        self._begin()

    def check_finite(self) -> None:
        """Refuse features that are not finite, once all samples were seen.

        Raises:
            NonFiniteError: With the number of samples by class, for the first layer in
                the order of execution that has any.
        """
        bad = {p: r.bad for p, r in self._recorders.items() if bool(r.bad.any())}
        if not bad:
            return
        path, counts = next(iter(bad.items()))
        classes = [k for k, n in enumerate(counts.tolist()) if n]
        named = [f"{self._class_names[k]} ({int(counts[k])})" for k in classes]
        others = f" {len(bad) - 1} more layers have some too." if len(bad) > 1 else ""
        raise NonFiniteError(
            f"The outputs of every layer must be finite; the first with others is "
            f"{self._shown(path)}: {int(counts.sum())} samples have NaN or infinite ones,"
            f" by class: {listed(named)}.{others} Check the inputs, and the weights and "
            "precision of this layer (float16 ends at 65504)."
        )

    def value(self) -> LayerProfile:
        """Return the profile of all samples so far, in the order of execution.

        Raises:
            NonFiniteError: If a layer has NaN or infinite values.
            LayerError: If a forward pass failed, or was not followed by :meth:`fold`.
        """
        if self._failed or self._calls:
            raise LayerError(
                "Every forward pass within the observer must be followed by `fold`, and "
                "none may fail; one was not, or did. Start with a new observer."
            )
        self.check_finite()
        return LayerProfile(
            self._settings.maps,
            tuple(self._recorders),
            tuple(recorder.value() for recorder in self._recorders.values()),
            tuple(f"{path}: {reason}" for path, reason in self._left_out.items()),
        )

    def _begin(self) -> None:
        """Be ready for the next forward pass."""
        self._calls: Counter[str] = Counter()
        self._inputs: dict[str, Tensor] = {}
        self._problems: dict[str, str] = {}
        self._ambiguous: dict[str, tuple[int, ...]] = {}
        self._changed: dict[str, str] = {}
        self._layout.forget()

    # Hooks. They never raise, which a model might catch: `fold` says what they found.

    def _copier(self, path: str) -> Callable[..., None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> None:
            value = next(tensors((*args, *kwargs.values())), None)
            if value is not None:
                self._inputs[path] = value.detach().clone()

        return hook

    def _watcher(self, path: str | None) -> Callable[..., None]:
        def hook(
            module: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            result: Any,  # noqa: ANN401 - a module may return anything
        ) -> None:
            inputs = (*args, *kwargs.values())
            output = next(tensors(result), None)
            axis = None if output is None else self._layout.note(module, inputs, output)
            if path is None:
                return
            self._calls[path] += 1
            before = self._inputs.pop(path, None)
            if self._calls[path] == 1 and path not in self._left_out:
                x = next(tensors(inputs), None) if before is None else before
                self._take(path, module, x, output, axis)

        return hook

    def _take(
        self,
        path: str,
        module: nn.Module,
        inputs: Tensor | None,
        output: Tensor | None,
        axis: int | None,
    ) -> None:
        if output is None or not output.is_floating_point() or not output.ndim:
            self._problems[path] = "it returns no real numbers for each sample"
            return
        axis = self._layout.assumed(output) if axis is None else axis
        if axis is None and self._settings.maps == "pooled":
            self._ambiguous[path] = tuple(output.shape)
            return
        fitted = fits(module, inputs, output)
        if self._choice.by == "all" and may_be_nonlinear(module) and not fitted:
            self._problems[path] = "it has no parameters, and does not keep the shape"
            return
        self._record(path, module, inputs if fitted else None, output, axis or 1)

    def _record(
        self,
        path: str,
        module: nn.Module,
        inputs: Tensor | None,
        output: Tensor,
        axis: int,
    ) -> None:
        if path not in self._recorders:
            name, fitted = type(module).__name__, inputs is not None
            self._recorders[path] = LayerRecorder(
                name, self._settings, output, axis, fitted=fitted
            )
            self._shapes[path] = tuple(output.shape)
        recorder = self._recorders[path]
        width = width_of(output, axis, self._settings.maps)
        if width != recorder.width or (recorder.fitted and inputs is None):
            self._changed[path] = f"{self._shapes[path]} and {tuple(output.shape)}"
            return
        recorder.see(inputs if recorder.fitted else None, output, axis)

    # What was found, as errors.

    def _check_calls(self) -> None:
        repeated = {path: n for path, n in self._calls.items() if n > 1}
        if repeated:
            raise LayerError(self._repeated(repeated))
        expected = set(self._choice.modules) - set(self._left_out)
        for path in self._choice.modules:
            if path in expected and not self._calls[path]:
                self._leave_out(path, _NOT_CALLED)
        for path, reason in self._left_out.items():
            if reason == _NOT_CALLED and self._calls[path]:
                raise LayerError(_SOMETIMES.format(self._shown(path)))

    def _check_outputs(self, samples: int) -> None:
        if self._changed:
            path, shapes = next(iter(self._changed.items()))
            raise LayerError(
                "A layer must give features of one shape for all batches; "
                f"{self._shown(path)} gave outputs of shapes {shapes}. "
                + _FIXED[self._settings.maps]
            )
        for path, recorder in self._recorders.items():
            if recorder.rows != samples:
                self._problems[path] = (
                    f"its output has {recorder.rows} rows for {samples} samples, and the "
                    "first axis must be that of samples"
                )
        for path, shape in self._ambiguous.items():
            raise LayerError(_AMBIGUOUS.format(self._shown(path), shape))
        for path, problem in self._problems.items():
            self._leave_out(path, problem)
        if not self._recorders:
            reasons = [f"{path}: {why}" for path, why in self._left_out.items()]
            raise LayerError(f"No layer can be measured: {listed(reasons)}.")

    def _leave_out(self, path: str, reason: str) -> None:
        """Leave a layer out, unless it was asked for by its path."""
        if self._choice.by == "paths":
            raise LayerError(
                f"A layer named in `layers` must give features; {self._shown(path)} does "
                f"not: {reason}. Leave it out."
            )
        if path in self._recorders and reason == _NOT_CALLED:
            raise LayerError(_SOMETIMES.format(self._shown(path)))
        self._recorders.pop(path, None)
        self._left_out[path] = reason

    def _repeated(self, calls: Mapping[str, int]) -> str:
        lines = [f"{self._shown(path)} {n} times" for path, n in calls.items()]
        return (
            "A layer must be called once per forward pass, since its calls are different "
            f"places in the network; called more often: {listed(lines)}. Give each call "
            "a module of its own, or choose others with `layers=`, by path or by type, "
            "such as `layers=[nn.Conv2d, nn.Linear]`."
        )

    def _shown(self, path: str) -> str:
        module = self._choice.modules[path]
        others = [name for name in names_of(self._model, module) if name != path]
        also = f", also {listed([repr(name) for name in others])}" if others else ""
        return f"layer {path!r} ({type(module).__name__}{also})"


_NOT_CALLED = "it was not called"
_SOMETIMES = (
    "A layer must be called for every batch or for none; {} was called for some. Does the "
    "model change its path with the data? Leave it out of `layers`."
)
_AMBIGUOUS = (
    "It must be clear what the features of a layer are; the output of {} has shape {}, "
    "which in a model with 1-d convolutions may be (samples, features, positions) or "
    "(samples, tokens, features). Choose layers without it, such as the convolution, norm "
    "or linear layer next to it."
)
_FIXED = {
    "pooled": "Leave it out of `layers`, or make its inputs the same size.",
    "flattened": (
        "Pass `maps='pooled'`, which takes maps and sequences of any size, or make the "
        "inputs the same size."
    ),
}
