"""Files: results are written whole or not at all, and what is read has to be there.

A result is first written beside its target and then renamed onto it, so that whoever
reads the target sees the old content or the new, never a part.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from layerpeel._checks import FileError


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


def existing_file(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """Return the path of a file to read.

    Raises:
        FileError: If it does not end in one of the suffixes.
        FileNotFoundError: If there is no such file.
    """
    file = Path(path)
    if file.suffix.lower() not in suffixes:
        raise FileError(
            f"`{path}` must end in one of {', '.join(suffixes)}; "
            f"got {file.suffix or 'no suffix'}."
        )
    if not file.is_file():
        raise FileNotFoundError(f"There is no file `{path}`. Check the path.")
    return file


def damaged_file(file: Path, kind: str, error: Exception) -> FileError:
    """Return the error for a file that is not what its suffix says."""
    reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return FileError(
        f"`{file}` is damaged or is no {kind} file: {reason or 'it is empty'}. "
        "Write or copy it again."
    )


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
