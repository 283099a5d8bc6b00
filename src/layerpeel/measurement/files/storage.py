"""Statistics in files: written whole or not at all, and checked when they are read."""

from __future__ import annotations

import os
from pathlib import Path

from layerpeel._checks import FileError
from layerpeel.measurement.files.container import Container
from layerpeel.measurement.files.content import check_content
from layerpeel.measurement.files.packed import Packed
from layerpeel.measurement.statistics.statistic import Statistic


def save_statistic(value: Statistic, path: str | os.PathLike[str]) -> Path:
    """Write a statistic to a file, whole or not at all.

    Args:
        value: Any statistic.
        path: The file, ending in ``.safetensors``; its directory must exist.

    Returns:
        The path written, with symbolic links followed.

    Raises:
        FileError: If the path has another suffix.
        OSError: If it cannot be written; the target is then as it was.

    Example:
        >>> import tempfile
        >>> from layerpeel.measurement import ClassMoments
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_statistic(ClassMoments.empty(3, 2), f"{folder}/m.safetensors")
        ...     load_statistic(path).num_classes
        3
    """
    packed = Packed.of(value)
    return Container(packed.kind, packed.settings, packed.tensors).write(path)


def load_statistic(path: str | os.PathLike[str]) -> Statistic:
    """Read a statistic that :func:`save_statistic` wrote.

    Args:
        path: The file.

    Returns:
        The same value, bit by bit, with tensors on the CPU.

    Raises:
        FileError: If the file is damaged, was changed, has another format or version,
            does not hold the parts of its kind, or holds what cannot be measured.
        FileNotFoundError: If there is no such file.
    """
    content = Container.read(path)
    try:
        value = Packed(content.kind, content.settings, content.tensors).value()
        check_content(value)
    except FileError as error:
        raise FileError(f"`{path}`: {error}") from error
    return value
