"""From what was typed to arguments of `measure`, `diagnose` and `clone_profile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from layerpeel.cli.environment import usable_device
from layerpeel.cli.sources import load_data, load_features, load_model
from layerpeel.measurement.clones.profile.protocol import WIDTHS

T = TypeVar("T")


def from_model(
    function: Callable[..., T],
    model: str,
    options: dict[str, str | None],
    batch_size: int,
    shared: dict[str, Any],
) -> T:
    """Call a function with a model, its data, and what else was typed.

    Args:
        function: `measure`, `diagnose`, or another of the same arguments.
        model: The reference of the model.
        options: The options that go with a model.
        batch_size: The size of batches that are cut here.
        shared: Further arguments.
    """
    source = load_model(model, options["weights"])
    if options["device"] is not None:
        source.model.to(options["device"])
    loaders = {
        name: load_data(reference, batch_size, source.dtype)
        for name in ("data", "eval_data")
        if (reference := options[name]) is not None
    }
    return function(
        source.model,
        loaders["data"],
        eval_loader=loaders.get("eval_data"),
        head=options["head"],
        device=options["device"],
        **_named(shared, source.class_names),
    )


def from_features(function: Callable[..., T], path: str, shared: dict[str, Any]) -> T:
    """Call a function with the features, labels and weights of a file.

    Args:
        function: `measure_features`, or another of the same arguments.
        path: The file.
        shared: Further arguments.
    """
    source = load_features(path)
    return function(
        source.features,
        source.labels,
        weight=source.weight,
        bias=source.bias,
        eval_features=source.eval_features,
        eval_labels=source.eval_labels,
        **_named(shared, source.class_names),
    )


def class_options(
    num_classes: int | None, class_names: str | None, minority: str | None
) -> dict[str, Any]:
    """Return what was typed about the classes, as arguments.

    Raises:
        ValueError: If the minority is not typed as integers.
    """
    return {
        "num_classes": num_classes,
        "class_names": parts(class_names),
        "minority": _integers("minority", minority),
    }


def check_device(device: str | None) -> None:
    """Check that a device is there, if one was typed.

    Raises:
        DeviceError: If it is not.
    """
    if device is not None:
        usable_device(device)


def parts(text: str | None) -> list[str] | None:
    """Return what stands between commas; ``None`` if nothing was typed."""
    return None if text is None else [part.strip() for part in text.split(",")]


def chunk_widths(text: str) -> str | list[int]:
    """Return the widths of chunks that were typed.

    Raises:
        ValueError: If they are neither a choice nor numbers of neurons.
    """
    if text.strip() in WIDTHS:
        return text.strip()
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise ValueError(
            f"--widths must be {', '.join(WIDTHS)}, or numbers of neurons of at least 1 "
            f"between commas, such as 8,16,32; got {text!r}."
        )
    return widths


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generator, from which the user's model and loaders may draw."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _integers(name: str, text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--{name} must be integers between commas, such as 5,6,7; got {text!r}."
        ) from error


def _named(shared: dict[str, Any], names: tuple[str, ...] | None) -> dict[str, Any]:
    """Fill in the class names of the source where none were typed, but are taken."""
    if "class_names" not in shared:
        return shared
    return shared | {"class_names": shared["class_names"] or names}
