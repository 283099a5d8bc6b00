"""What layerpeel runs on: versions, devices, threads, linear algebra."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import layerpeel
from layerpeel._checks import DeviceError

# What each optional part needs, as in the project's metadata.
EXTRAS = {
    "report": ("jinja2",),
    "cli": ("typer",),
    "study": ("scikit-learn", "pandas"),
    "transformers": ("transformers",),
}

_CORE = ("torch", "numpy", "scipy", "matplotlib", "rich", "safetensors", "jaxtyping")


@dataclass(frozen=True)
class Environment:
    """What layerpeel runs on.

    Attributes:
        versions: The versions of layerpeel, Python and the packages always needed.
        extras: For every optional part, the versions of its packages; ``None`` for one
            that is not installed.
        devices: The devices that PyTorch can use, the CPU first.
        threads: How many threads PyTorch uses on the CPU.
        blas: The linear algebra libraries of PyTorch and NumPy.
    """

    versions: Mapping[str, str]
    extras: Mapping[str, Mapping[str, str | None]]
    devices: tuple[str, ...]
    threads: int
    blas: Mapping[str, str]

    @classmethod
    def here(cls) -> Environment:
        """Look around in this process."""
        core = {name: importlib.metadata.version(name) for name in _CORE}
        own = {"layerpeel": layerpeel.__version__, "python": platform.python_version()}
        return cls(
            versions=own | core,
            extras={
                extra: {name: _version(name) for name in packages}
                for extra, packages in EXTRAS.items()
            },
            devices=_devices(),
            threads=torch.get_num_threads(),
            blas=_blas(),
        )

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain dicts, lists and strings."""
        return asdict(self) | {"devices": list(self.devices)}

    def rows(self) -> list[tuple[str, str]]:
        """Return everything as lines of a table: an item and what was found."""
        extras = [
            (f"{extra}: {name}", version or f"missing: {install_line(extra)}")
            for extra, packages in self.extras.items()
            for name, version in packages.items()
        ]
        return [
            *self.versions.items(),
            *extras,
            *((f"device {i}", device) for i, device in enumerate(self.devices)),
            ("threads", str(self.threads)),
            *((f"BLAS of {name}", blas) for name, blas in self.blas.items()),
        ]


def install_line(extra: str) -> str:
    """Return the shell line that installs an optional part.

    Example:
        >>> install_line("report")
        "pip install 'layerpeel[report]'"
    """
    return f"pip install 'layerpeel[{extra}]'"


def usable_device(name: str) -> torch.device:
    """Return a device if tensors can be put there.

    Args:
        name: Its name, such as ``cpu`` or ``cuda:0``.

    Raises:
        DeviceError: If there is no such device; the message lists those there are.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # unknown; or known and absent
        raise DeviceError(
            f"The device must be one of {', '.join(_devices())}; got {name!r}."
        ) from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> tuple[str, ...]:
    cuda = [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ("cpu", *cuda, *mps)


def _blas() -> dict[str, str]:
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    built: Any = np.show_config(mode="dicts")
    numpy_blas = built.get("Build Dependencies", {}).get("blas", {})
    return {
        "torch": found[1] if found else "unknown",
        "numpy": numpy_blas.get("name", "unknown"),
    }
