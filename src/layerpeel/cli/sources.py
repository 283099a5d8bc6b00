"""What the command line builds its model and its data from: references and files.

Following a reference runs the caller's own code; everything else here only reads.
Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from layerpeel._arrays import ARRAY_SUFFIXES, read_arrays
from layerpeel._checks import FileError, SourceError, at_least, listed
from layerpeel._weights import read_weights
from layerpeel.cli.huggingface import INPUT_NAMES, load_huggingface
from layerpeel.cli.references import call, load_object
from layerpeel.datasets.batches import ArrayLoader

Arrays = Mapping[str, Tensor | np.ndarray]


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model in eval mode.

    Attributes:
        model: The model.
        class_names: The names of its classes, where it came with any.
    """

    model: nn.Module
    class_names: tuple[str, ...] | None = None

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating type of its first parameter, and presumably of its inputs."""
        parameters = self.model.parameters()
        return next((p.dtype for p in parameters if p.is_floating_point()), None)


@dataclass(frozen=True, eq=False)
class FeatureSource:
    r"""Last-layer features with the classifier that acts on them; nothing is checked.

    Attributes:
        features: Features, with shape :math:`(n, p)`.
        labels: Class indices, with shape :math:`(n,)`.
        weight: The last weight matrix, with shape :math:`(K, p)`.
        bias: Its bias, with shape :math:`(K,)`.
        eval_features: Features of held-out samples, with shape :math:`(m, p)`.
        eval_labels: Their class indices, with shape :math:`(m,)`.
        class_names: The name of each class.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor | None = None
    eval_features: Tensor | None = None
    eval_labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None


def load_model(reference: str, weights: str | None = None) -> ModelSource:
    """Build a model, load its weights, and put it in eval mode.

    Args:
        reference: A reference to a module, or to a callable without arguments that
            makes one; or a folder that Hugging Face's ``save_pretrained`` wrote.
        weights: A file of :func:`~layerpeel._weights.read_weights`; every tensor of the
            model must be in it, and no other.

    Returns:
        The model, with the class names of a Hugging Face folder.

    Raises:
        SourceError: If the reference cannot be followed, does not give a module, or
            does not fit the weights.
        FileError: If the weights are damaged or hold other things than tensors.
        OSError: If a file is missing.
        ImportError: If the folder needs ``transformers`` and it is not installed.
    """
    if Path(reference).is_dir():
        source = ModelSource(*load_huggingface(Path(reference)))
    else:
        source = ModelSource(_build_model(reference))
    if weights is not None:
        _load_weights(source.model, weights)
    source.model.eval()
    return source


def load_data(
    reference: str, batch_size: int, dtype: torch.dtype | None = None
) -> Iterable[Any]:
    """Find batches that can be iterated again and again.

    An array file holds ``labels`` with either ``inputs``, which gives tuples, or the
    names that Hugging Face models take, such as ``pixel_values`` or ``input_ids`` with
    ``attention_mask``, which gives dicts. A map-style data set is cut into batches.

    Args:
        reference: An ``.npz`` or ``.safetensors`` file; or a reference to an iterable
            of batches, or to a callable without arguments that makes one.
        batch_size: The size of batches that are cut here.
        dtype: Floating inputs of array files are converted to it; NumPy's float64
            seldom is what a model wants.

    Returns:
        The batches. What comes from a file has a length, a loader if it says so.

    Raises:
        SourceError: If the reference cannot be followed or gives nothing to iterate.
        FileError: If the file is damaged or holds other names.
        ShapeError: If the numbers of samples differ.
        LabelError: If the labels in the file are no class indices.
        OSError: If a file is missing.
    """
    if Path(reference).suffix.lower() in ARRAY_SUFFIXES:
        return _array_batches(reference, batch_size, dtype)
    if ":" not in reference:
        raise SourceError(
            "Data must be given as `package.module:name`, as `path/to/file.py:name`, "
            f"or as a file that ends in {' or '.join(ARRAY_SUFFIXES)}; got "
            f"{reference!r}."
        )
    found = load_object(reference)
    if callable(found) and (isinstance(found, type) or not isinstance(found, Iterable)):
        return _called_batches(found, reference, batch_size)
    if isinstance(found, Iterator):
        raise SourceError(
            f"`{reference}` must be iterable more than once; got a "
            f"{type(found).__name__}. Name the function that makes it instead."
        )
    return _batches(found, reference, batch_size)


def load_features(path: str) -> FeatureSource:
    """Read features and the classifier from an ``.npz`` or ``.safetensors`` file.

    Args:
        path: The file. It holds ``features``, ``labels`` and ``weight``, and may hold
            ``bias``, ``eval_features`` with ``eval_labels``, and ``class_names``.

    Returns:
        The arrays.

    Raises:
        FileError: If the file is damaged or holds other names.
        FileNotFoundError: If there is no such file.
    """
    arrays = read_arrays(path)
    optional = ("bias", "eval_features", "eval_labels", "class_names")
    _check_names(path, arrays, ("features", "labels", "weight"), optional)
    if ("eval_features" in arrays) != ("eval_labels" in arrays):
        raise FileError(
            f"`{path}` must hold `eval_features` and `eval_labels` together; it holds "
            f"{_keys(arrays)}. Add the other one."
        )
    names = _class_names(path, arrays.pop("class_names", None))
    tensors = {name: _numbers(path, name, array) for name, array in arrays.items()}
    return FeatureSource(**tensors, class_names=names)


def _build_model(reference: str) -> nn.Module:
    if ":" not in reference:
        raise SourceError(
            "A model must be given as `package.module:name`, `path/to/file.py:name`, "
            f"or a local Hugging Face folder; there is no folder {reference!r}."
        )
    found = load_object(reference)
    if callable(found) and not isinstance(found, nn.Module):
        found = call(found, reference)
    if isinstance(found, nn.Module):
        return found
    raise SourceError(
        f"`{reference}` must be a `torch.nn.Module`, or a function without arguments "
        f"that returns one; got {_kind(found)}."
    )


def _load_weights(model: nn.Module, path: str) -> None:
    """Load strictly; only a tensor shared with one in the file may be missing there."""
    state = read_weights(path)
    own = model.state_dict(keep_vars=True)
    filled = {id(own[name]) for name in state.keys() & own.keys()}
    missing = [n for n in own if n not in state and id(own[n]) not in filled]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise SourceError(
            f"The weights in `{path}` must fit the model name by name; missing: "
            f"{listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'}."
            f"{_prefix_hint(list(own), list(state))}"
        )
    try:
        # Not strict, for the sake of shared tensors: the names have been checked.
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reasons = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        raise SourceError(
            f"The weights in `{path}` must have the model's shapes. "
            f"{'; '.join(reasons[:4])}."
        ) from error


def _prefix_hint(own: list[str], given: list[str]) -> str:
    """Recognise weights of a wrapper, such as DataParallel or a Lightning module."""
    first = own[0] if own else ""
    for prefix in (name.removesuffix(first) for name in given if name.endswith(first)):
        if {prefix + name for name in own} == set(given):
            return (
                f" All names in the file begin with `{prefix}`: save the weights of "
                f"`wrapper.{prefix.rstrip('.')}` instead of those of the wrapper."
            )
    return ""


@dataclass(frozen=True)
class _Renewed:
    """A single pass, such as a generator, made anew for every iteration."""

    make: Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def _called_batches(
    factory: Callable[[], Any], reference: str, batch_size: int
) -> Iterable[Any]:
    found = call(factory, reference)
    if isinstance(found, Iterator):
        return _Renewed(factory)
    return _batches(found, reference, batch_size)


def _batches(found: object, reference: str, batch_size: int) -> Iterable[Any]:
    if isinstance(found, Dataset):
        return DataLoader(found, batch_size=at_least("batch_size", batch_size, 1))
    if isinstance(found, Iterable) and not isinstance(found, str | Mapping | Tensor):
        return found
    raise SourceError(
        f"`{reference}` must be an iterable of (inputs, labels) batches, or a function "
        f"without arguments that returns one; got {_kind(found)}."
    )


def _array_batches(
    path: str, batch_size: int, dtype: torch.dtype | None
) -> ArrayLoader:
    arrays = read_arrays(path)
    _check_names(path, arrays, ("labels",), ("inputs", *INPUT_NAMES))
    numbers = {name: _numbers(path, name, array) for name, array in arrays.items()}
    labels = numbers.pop("labels")
    if not numbers or ("inputs" in numbers and len(numbers) > 1):
        raise FileError(
            f"Beside `labels`, `{path}` must hold either `inputs` or named inputs of a "
            f"Hugging Face model, {_keys(INPUT_NAMES)}; it holds {_keys(arrays)}."
        )
    inputs = {
        name: array.to(dtype or array.dtype) if array.is_floating_point() else array
        for name, array in numbers.items()
    }
    return ArrayLoader(inputs.get("inputs", inputs), labels, batch_size)


def _check_names(
    path: str, arrays: Arrays, required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    """Refuse unknown names too: a misspelt optional one would be left out silently."""
    missing = [name for name in required if name not in arrays]
    unknown = [name for name in arrays if name not in required + optional]
    if missing or unknown:
        wrong = f"lacks {_keys(missing)}" if missing else f"also holds {_keys(unknown)}"
        raise FileError(
            f"`{path}` must hold {_keys(required)} and may hold {_keys(optional)}; it "
            f"{wrong}, and holds {_keys(arrays)} in all. Rename or leave out arrays."
        )


def _numbers(path: str, name: str, array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array
    raise FileError(f"`{name}` in `{path}` must hold numbers; it holds text.")


def _class_names(
    path: str, names: Tensor | np.ndarray | None
) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, np.ndarray) and names.ndim == 1:
        return tuple(map(str, names))
    raise FileError(
        f"`class_names` in `{path}` must be a list of strings, as "
        f"`np.array(['cat', 'dog'])` makes it; got {_kind(names)} of shape "
        f"{tuple(names.shape)}."
    )


def _keys(names: Iterable[str]) -> str:
    return listed([f"`{name}`" for name in names], 12) or "nothing"


def _kind(value: object) -> str:
    return f"a `{type(value).__name__}`"
