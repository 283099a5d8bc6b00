"""Weights from files, without running what is in them."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerpeel._arrays import read_safetensors
from layerpeel._checks import FileError, listed
from layerpeel._files import damaged_file, existing_file

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

# Training scripts keep the weights under these keys, beside the optimizer and the step.
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")

_SAVE_WEIGHTS = (
    "Save the weights alone: "
    "`safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')`."
)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state dict from ``.safetensors`` or a ``torch.save`` file of tensors.

    A checkpoint that keeps the state dict under one of ``state_dict``,
    ``model_state_dict`` and ``model`` is unwrapped. No code in a file is ever run.

    Args:
        path: The file.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        FileError: If the suffix is another, the file is damaged, holds objects other
            than tensors, or does not hold exactly one state dict.
        FileNotFoundError: If there is no such file.
    """
    file = existing_file(path, WEIGHT_SUFFIXES)
    if file.suffix.lower() == ".safetensors":
        return dict(read_safetensors(file))
    return _state_dict(_read_torch(file), file)


def _read_torch(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Torch warns about odd pickles and then refuses them: once is enough.
            warnings.simplefilter("ignore")
            return torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        got = f"objects such as `{named[1]}`" if named else "objects, or is damaged"
        raise FileError(
            f"`{file}` must hold tensors alone, since loading objects could run any "
            f"code; it holds {got}. {_SAVE_WEIGHTS}"
        ) from error
    except Exception as error:  # torch raises whatever its parser stumbled on
        known = (
            error
            if isinstance(error, RuntimeError)
            else ValueError("it cannot be parsed")
        )
        raise damaged_file(file, "torch.save", known) from error


def _state_dict(loaded: object, file: Path) -> dict[str, Any]:
    if _is_state(loaded):
        return dict(loaded)  # type: ignore[call-overload, no-any-return]
    entries = loaded if isinstance(loaded, Mapping) else {}
    found = [key for key in _CHECKPOINT_KEYS if _is_state(entries.get(key))]
    if len(found) == 1:
        return dict(entries[found[0]])
    got = f"a dict with the keys {listed(list(entries))}" if entries else type(loaded)
    raise FileError(
        f"`{file}` must hold one state dict, itself or under one of the keys "
        f"{', '.join(_CHECKPOINT_KEYS)}; got {got}. {_SAVE_WEIGHTS}"
    )


def _is_state(value: object) -> bool:
    """Whether names are mapped to tensors, or to the extra state of some modules."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(
            isinstance(name, str)
            and (isinstance(entry, Tensor) or name.endswith("_extra_state"))
            for name, entry in value.items()
        )
    )
