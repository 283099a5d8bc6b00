"""Training a family of networks of several widths and seeds, and resuming it.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: families
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import ShapeError, at_least, listed
from layerpeel._files import make_directory
from layerpeel._json import plain
from layerpeel._progress import track
from layerpeel.measurement.files.digest import content_digest
from layerpeel.studies.families.files import (
    Saved,
    load_network,
    save_network,
    state_tensors,
)
from layerpeel.studies.families.members import distinct_widths
from layerpeel.studies.training import Training, train

Factory = Callable[[int, int], nn.Module]
Fit = Callable[[nn.Module, int], nn.Module]


def train_family(
    factory: Factory,
    widths: Sequence[int],
    seeds: Sequence[int],
    fit: Fit | tuple[Tensor, Tensor],
    *,
    training: Training | None = None,
    folder: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> dict[int, tuple[nn.Module, ...]]:
    """Train one network for every width and seed, or load those trained before.

    The global generator of the CPU is seeded with the network's seed for the factory and
    again for the fit, and put back as it was: a factory needs no care to be repeatable.
    With a folder, every network is saved when it is trained, whole or not at all, with
    what it is. After a kill a second call loads what is there and trains the rest.

    Args:
        factory: Makes an untrained network from a width and a seed.
        widths: The widths.
        seeds: The seeds, the same for every width.
        fit: Trains a network in place or anew, and returns it; it is given the seed too.
            Or training inputs and labels, for full-batch training until the regularised
            loss is stationary, or for ``max_epochs``.
        training: How to train on inputs and labels.
        folder: Where networks are kept; made if it is missing. Nowhere when omitted.
        settings: What the fit depends on, as JSON can hold it, such as step size and
            number of epochs; needed with a folder when ``fit`` is a function, which
            does not say what it does. Networks of other settings are refused.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The networks in eval mode, in the order of the seeds, by width; what
        :func:`~layerpeel.studies.families.width_family` takes.

    Raises:
        TypeError: If the factory or the fit does not return a module.
        ValueError: If there is no width or seed, one appears twice, or settings are
            missing, or given where they have no use.
        ShapeError: If there is not one label per input.
        FileError: If a file is damaged, or holds a network of other settings or another
            initialisation.
        OSError: If the folder cannot be written to.

    Example:
        >>> inputs, labels = torch.eye(3), torch.arange(3)
        >>> networks = train_family(
        ...     lambda width, seed: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 3)),
        ...     widths=[4, 8],
        ...     seeds=[0, 1],
        ...     fit=(inputs, labels),
        ...     training=Training(max_epochs=5),
        ... )
        >>> {width: len(trained) for width, trained in networks.items()}
        {4: 2, 8: 2}
    """
    sizes = distinct_widths("widths", widths)
    numbers = _distinct_seeds(seeds)
    run, said = _checked_fit(fit, training, settings, keep=folder is not None)
    place = None if folder is None else make_directory(folder)
    jobs = [(width, seed) for width in sizes for seed in numbers]
    trained: dict[int, list[nn.Module]] = {width: [] for width in sizes}
    for width, seed in track(jobs, "Training networks", show=progress):
        trained[width].append(_network(factory, width, seed, run, place, said))
    return {width: tuple(models) for width, models in trained.items()}


def _network(
    factory: Factory,
    width: int,
    seed: int,
    fit: Fit,
    folder: Path | None,
    settings: Mapping[str, Any],
) -> nn.Module:
    """Load a network if it is there, or train and save it."""
    with _seeded(seed):
        model = _module("factory", factory(width, seed))
    if folder is None:
        with _seeded(seed):
            return _module("fit", fit(model, seed)).eval()
    state = state_tensors(model)
    layout = {name: tuple(tensor.shape) for name, tensor in state.items()}
    saved = Saved(width, seed, content_digest({}, state), settings)
    path = folder / f"width-{width}-seed-{seed}.safetensors"
    if path.exists():
        return load_network(path, model, saved).eval()
    with _seeded(seed):
        fitted = _module("fit", fit(model, seed)).eval()
    save_network(path, fitted, layout, saved)
    return fitted


def _checked_fit(
    fit: Fit | tuple[Tensor, Tensor],
    training: Training | None,
    settings: Mapping[str, Any] | None,
    *,
    keep: bool,
) -> tuple[Fit, dict[str, Any]]:
    """Return what trains a network, and what it depends on."""
    if isinstance(fit, tuple):
        if settings is not None:
            raise ValueError(
                "`settings` are what a function `fit` depends on; got inputs and labels, "
                "whose settings are `training`. Leave `settings` out."
            )
        full = _FullBatch(*fit, training or Training())
        return full, full.settings()
    if training is not None:
        raise ValueError(
            "`training` says how to train on inputs and labels; `fit` is a function. "
            "Leave `training` out, or pass inputs and labels."
        )
    if keep and settings is None:
        raise ValueError(
            "With a `folder`, a function `fit` needs `settings`, so that networks that "
            "were trained in another way are not taken for its own; got none. Pass a "
            "mapping of what it depends on, such as {'epochs': 100, 'data': 'v1'}."
        )
    return fit, plain(dict(settings or {}))


@dataclass(frozen=True, eq=False)
class _FullBatch:
    """Full-batch training until the regularised loss is stationary."""

    inputs: Tensor
    labels: Tensor
    training: Training

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or len(self.inputs) != len(self.labels):
            raise ShapeError(
                "There must be one label per input, with shape (N,); got shapes "
                f"{tuple(self.inputs.shape)} and {tuple(self.labels.shape)}."
            )
        at_least("the number of training samples", len(self.labels), 1)

    def __call__(self, model: nn.Module, seed: int) -> nn.Module:
        # A bar for the whole family is shown: not one more per network.
        return train(
            model, self.inputs, self.labels, self.training, progress=False
        ).model

    def settings(self) -> dict[str, Any]:
        """Return all that a result depends on, with the data as their digest."""
        data = content_digest({}, {"inputs": self.inputs, "labels": self.labels})
        return {"training": asdict(self.training), "data": data}


def _distinct_seeds(seeds: Sequence[int]) -> list[int]:
    found = [at_least("a seed", seed, 0) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"`seeds` must be distinct, and at least one; got {listed(found) or 'none'}. "
            "Networks of the same seed are the same network."
        )
    return found


def _module(name: str, value: object) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    raise TypeError(
        f"`{name}` must return a torch.nn.Module; got {type(value).__name__}. Return "
        "the network."
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generator of the CPU, and put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
