"""A safetensors file that says what it holds, and notices when it was changed.

The metadata of the file has a format, a version, a kind, settings as JSON, and the
SHA-256 digest of all of that and of every tensor. A digest shows damage and edits by
hand; it is no signature, and protects from no one who computes it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from layerpeel._checks import FileError
from layerpeel._files import damaged_file, existing_file, write_whole
from layerpeel.measurement.files.digest import content_digest

SUFFIX = ".safetensors"
VERSION = 1
_FORMAT = "layerpeel"


@dataclass(frozen=True, eq=False)
class Container:
    """The content of a file.

    Attributes:
        kind: What it describes: the name of a class.
        settings: Everything that is no tensor, as JSON can hold it.
        tensors: The tensors by name.
    """

    kind: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the content, as hexadecimal digits."""
        return content_digest(_metadata(self), self.tensors)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the file whole or not at all.

        Args:
            path: The file, ending in ``.safetensors``; its directory must exist.

        Returns:
            The path written, with symbolic links followed.

        Raises:
            FileError: If the path has another suffix.
            OSError: If it cannot be written; the target is then as it was.
        """
        check_suffix(path)
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.tensors.items()
        }
        metadata = _metadata(self)
        metadata["digest"] = content_digest(metadata, tensors)
        return write_whole(path, save(tensors, metadata))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Container:
        """Read a file that :meth:`write` wrote.

        Args:
            path: The file.

        Returns:
            Its content, with tensors on the CPU.

        Raises:
            FileError: If it is damaged, of another format or version, or changed.
            FileNotFoundError: If there is no such file.
        """
        file = existing_file(path, (SUFFIX,))
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = dict(opened.metadata() or {})
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged_file(file, SUFFIX, error) from error
        _check_format(path, metadata)
        if metadata.pop("digest", None) != content_digest(metadata, tensors):
            raise FileError(
                f"`{path}` must be as it was written; its content does not fit its "
                "digest, so it was changed or damaged. Measure again, or copy it again."
            )
        return cls(metadata["kind"], _settings(path, metadata["settings"]), tensors)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Check the suffix of a file to be written.

    Raises:
        FileError: If it is not ``.safetensors``.
    """
    if Path(path).suffix != SUFFIX:
        raise FileError(
            f"Statistics are written to a file that ends in {SUFFIX}; got "
            f"`{path}`. Choose another name."
        )


def _metadata(content: Container) -> dict[str, str]:
    settings = json.dumps(content.settings, sort_keys=True, allow_nan=False)
    return {
        "format": _FORMAT,
        "version": str(VERSION),
        "kind": content.kind,
        "settings": settings,
    }


def _settings(path: str | os.PathLike[str], text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise FileError(
            f"`{path}` must hold its settings as a mapping in JSON; it does not. Write "
            "the file again."
        )
    return settings


def _check_format(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != _FORMAT:
        raise FileError(
            f"`{path}` must be a file of statistics, as `layerpeel measure` writes; it "
            "holds tensors of another kind. Features and weights are read by "
            "`layerpeel measure --features`."
        )
    if metadata.get("version") != str(VERSION):
        raise FileError(
            f"`{path}` must have version {VERSION}; it has "
            f"{metadata.get('version', 'none')}. Read it with the version of layerpeel "
            "that wrote it, or measure again."
        )
    missing = [name for name in ("kind", "settings") if name not in metadata]
    if missing:
        raise FileError(
            f"`{path}` must say its {missing[0]}; it does not. Measure again."
        )
