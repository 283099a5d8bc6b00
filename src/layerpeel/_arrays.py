"""Named arrays from files, without pickles."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerpeel._checks import FileError
from layerpeel._files import damaged_file, existing_file

ARRAY_SUFFIXES = (".npz", ".safetensors")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Tensor | np.ndarray]:
    """Read named arrays from ``.npz`` or ``.safetensors``; nothing is unpickled.

    Args:
        path: The file.

    Returns:
        Numbers as tensors of their own dtype on the CPU, text as NumPy arrays.

    Raises:
        FileError: If the suffix is another, the file is damaged, or an array holds
            objects or anything else that is neither number nor text.
        FileNotFoundError: If there is no such file.
    """
    file = existing_file(path, ARRAY_SUFFIXES)
    if file.suffix.lower() == ".safetensors":
        return dict(read_safetensors(file))
    return {name: _plain(name, array, file) for name, array in _read_npz(file).items()}


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, by name and in order of the names.

    Raises:
        FileError: If the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # Its header has no fixed order; messages should not differ from run to run.
        return dict(sorted(load_file(file).items()))
    except SafetensorError as error:
        raise damaged_file(file, ".safetensors", error) from error


def _read_npz(file: Path) -> dict[str, object]:
    if not zipfile.is_zipfile(file):
        # NumPy would read a .npy file, and take anything else for a pickle.
        raise damaged_file(file, ".npz", ValueError("it is not a zip archive"))
    arrays: dict[str, object] = {}
    with np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except Exception as error:  # zipfile, zlib or numpy, by where the damage is
                raise _bad_member(name, file, error) from error
    return arrays


def _bad_member(name: str, file: Path, error: Exception) -> FileError:
    if "Object arrays" not in str(error):
        return damaged_file(file, ".npz", error)
    return FileError(
        f"`{name}` in `{file}` must hold numbers or text; it holds Python objects, "
        "which are never unpickled. Save it with a plain dtype: "
        f"`np.savez(file, {name}=np.asarray(values, dtype=...))`."
    )


def _plain(name: str, array: object, file: Path) -> Tensor | np.ndarray:
    """Return numbers as a tensor and text as it is; refuse all else."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "U":
        return array
    try:
        # Torch has no byte order: swap where the file has the other one.
        numbers = np.asarray(array)
        native = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native)
    except TypeError as error:
        raise FileError(
            f"`{name}` in `{file}` must hold numbers or text (str); got "
            f"{np.asarray(array).dtype}. Convert it, or leave it out."
        ) from error
