"""A trained network in a file that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from layerpeel._checks import FileError, listed
from layerpeel.measurement.files.container import Container

_KIND = "Network"
_AGAIN = "Delete the file to train this network again, or choose another folder."


@dataclass(frozen=True)
class Saved:
    """What a saved network is.

    Attributes:
        width: Its width.
        seed: Its seed.
        initial: The digest of its state before training: another factory has another.
        settings: What its training depends on, as JSON can hold it.
    """

    width: int
    seed: int
    initial: str
    settings: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """Return all of it as JSON reads it back."""
        content: dict[str, Any] = json.loads(json.dumps(vars(self), allow_nan=False))
        return content


def save_network(
    path: Path, model: nn.Module, layout: Mapping[str, tuple[int, ...]], saved: Saved
) -> Path:
    """Write the state of a network, whole or not at all.

    Args:
        path: The file; its directory must exist.
        model: The network.
        layout: Shapes of the state of an untrained one, by name: into such a one it
            will be loaded.
        saved: What it is.

    Raises:
        FileError: If it could not be loaded again.
        OSError: If the file cannot be written; it is then as it was.
    """
    state = state_tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != dict(layout):
        differ = sorted(dict(shapes.items() ^ layout.items()))
        raise FileError(
            "A network must have the same parameters and buffers after training as its "
            f"factory makes, to be loaded again; these differ: {listed(differ)}. Return "
            "the network itself from `fit`, or train without a `folder`."
        )
    return Container(_KIND, saved.content(), state).write(path)


def load_network(path: Path, model: nn.Module, saved: Saved) -> nn.Module:
    """Load the state of a network into an untrained one.

    Args:
        path: The file.
        model: An untrained network; changed in place.
        saved: What it must be.

    Raises:
        FileError: If the file is damaged, or holds another network.
    """
    try:
        content = Container.read(path)
    except FileError as error:
        raise FileError(f"{error} {_AGAIN}") from error
    if content.kind != _KIND:
        raise FileError(
            f"`{path}` must hold a network; it holds a {content.kind}. {_AGAIN}"
        )
    _check_same(path, content.settings, saved.content())
    if set(content.tensors) != set(state_tensors(model)):
        raise FileError(f"`{path}` must hold the state of the network. {_AGAIN}")
    model.load_state_dict(dict(content.tensors))
    return model


def _check_same(path: Path, found: Mapping[str, Any], wanted: dict[str, Any]) -> None:
    """Check that a file is about the network that is asked for."""
    for name, value in wanted.items():
        if found.get(name) == value:
            continue
        if name == "initial":
            raise FileError(
                f"`{path}` must hold a network of this factory; the untrained one "
                "differed from what the factory makes now for the same width and seed. "
                f"Is it another factory? {_AGAIN}"
            )
        raise FileError(
            f"`{path}` must have been trained with the same {name}; asked for {value}, "
            f"and it has {found.get(name)}. {_AGAIN}"
        )


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network by name.

    Raises:
        FileError: If some of it is no tensor.
    """
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise FileError(
            "The state of a network must be tensors, to be kept without pickles; these "
            f"are none: {listed(other)}. Train without a `folder`."
        )
    return dict(state)
