"""Files: results are written whole or not at all, arrays are read without pickles.

A result is first written beside its target and then renamed onto it, so that whoever
reads the target sees the old content or the new, never a part. What is read is judged
by its suffix and refused with a reason when the content is something else.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpeel._checks import FileError, listed

ARRAY_SUFFIXES = (".npz", ".safetensors")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

# Training scripts keep the weights under these keys, beside the optimizer and the step.
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")

_SAVE_WEIGHTS = (
    "Save the weights alone: "
    "`safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')`."
)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Check, before long work, that a file can be written.

    Args:
        path: The file to be; it may exist, its directory must.

    Returns:
        The path with symbolic links followed, so that a link stays a link.

    Raises:
        OSError: If the directory is missing or cannot be written to, or if the path is
            something other than a file.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"`{path}` must be a file; it is a directory.")
    if target.exists() and not target.is_file():
        # Renaming onto a device such as /dev/null would replace the device.
        raise OSError(f"`{path}` must be a regular file; it is a device or a pipe.")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"`{path}` is write-protected. Choose another path.")
    _check_directory(target.parent)
    return target


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Make a directory where it is missing, and check that files can be written there.

    Args:
        path: The directory to be; its parents are made too.

    Returns:
        The directory.

    Raises:
        OSError: If it cannot be made or written to.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"The directory `{path}` cannot be made: {_reason(error)}. Choose another."
        ) from error
    _check_directory(directory)
    return directory


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file whole or not at all.

    The content goes to a hidden temporary file in the same directory, is flushed to the
    disk, and takes the target's name in one step. After an error the temporary file is
    gone; after a kill it may stay, and the target is what it was.

    Args:
        path: The file to write; it may exist, its directory must.
        content: Text, written as UTF-8, or bytes.

    Returns:
        The path written, with symbolic links followed.

    Raises:
        OSError: If the file cannot be written; the target is then as it was.
    """
    target = check_writable(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".layerpeel-{secrets.token_hex(8)}.tmp")
    try:
        _write_through(temporary, data)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(
            f"`{path}` could not be written: {_reason(error)}. It is as it was before."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


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
    file = _existing(path, ARRAY_SUFFIXES)
    if file.suffix.lower() == ".safetensors":
        return dict(_read_safetensors(file))
    return {name: _plain(name, array, file) for name, array in _read_npz(file).items()}


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
    file = _existing(path, WEIGHT_SUFFIXES)
    if file.suffix.lower() == ".safetensors":
        return dict(_read_safetensors(file))
    return _state_dict(_read_torch(file), file)


def _check_directory(directory: Path) -> None:
    if not directory.exists():
        raise FileNotFoundError(
            f"The directory `{directory}` must exist. Create it, or choose another."
        )
    if not directory.is_dir():
        raise NotADirectoryError(f"`{directory}` must be a directory; it is a file.")
    try:
        # Trying is the only honest test: root passes os.access on read-only systems.
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"The directory `{directory}` cannot be written to: {_reason(error)}. "
            "Choose another."
        ) from error


def _reason(error: OSError) -> str:
    """What the system said, without the number and the path."""
    return error.strerror or str(error)


def _write_through(path: Path, data: bytes) -> None:
    """Create a file with the user's default permissions, and flush it to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _existing(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    file = Path(path)
    if file.suffix.lower() not in suffixes:
        raise FileError(
            f"`{path}` must end in one of {', '.join(suffixes)}; "
            f"got {file.suffix or 'no suffix'}."
        )
    if not file.is_file():
        raise FileNotFoundError(f"There is no file `{path}`. Check the path.")
    return file


def _damaged(file: Path, kind: str, error: Exception) -> FileError:
    reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return FileError(
        f"`{file}` is damaged or is no {kind} file: {reason or 'it is empty'}. "
        "Write or copy it again."
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # Its header has no fixed order; messages should not differ from run to run.
        return dict(sorted(load_file(file).items()))
    except SafetensorError as error:
        raise _damaged(file, ".safetensors", error) from error


def _read_npz(file: Path) -> dict[str, object]:
    if not zipfile.is_zipfile(file):
        # NumPy would read a .npy file, and take anything else for a pickle.
        raise _damaged(file, ".npz", ValueError("it is not a zip archive"))
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
        return _damaged(file, ".npz", error)
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
        raise _damaged(file, "torch.save", known) from error


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
