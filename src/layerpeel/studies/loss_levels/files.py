"""What a study has done so far, in files: points of a search, and runs on their way.

Every file says what it is of, so that nothing is taken for the result of other settings:
settings as they are, and the risk and its gradient at the start, which know of network,
loss and data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from layerpeel._checks import FileError
from layerpeel.landscape import Risk
from layerpeel.landscape.reduction import LossFunction
from layerpeel.measurement.files.container import Container
from layerpeel.studies.loss_levels.search import (
    Batches,
    Found,
    Rejection,
    Search,
    search_from,
)

_AGAIN = "Delete the file to compute it again, or choose another folder."

# The start is the same up to sums in another order, as on another machine.
_SAME_START = 1e-9


def kept_search(
    path: Path | None,
    model: nn.Module,
    loss_fn: LossFunction,
    data: Batches,
    search: Search,
) -> Found:
    """Return the points of a start from their file, or search and write it.

    Args:
        path: The file; nothing is kept when ``None``.
        model: The start.
        loss_fn: Takes outputs and targets, returns a scalar, the mean over samples.
        data: Batches that can be read again.
        search: How to look.

    Raises:
        FileError: If the file is damaged, or of something else.
        OSError: If it cannot be written.
    """
    if path is None:
        return search_from(model, loss_fn, data, search)
    about = {"search": asdict(search), "start": _start(model, loss_fn, data)}
    if path.exists():
        return _found(read(path, "Search", about))
    found = search_from(model, loss_fn, data, search)
    reasons = [None if why is None else why.name for why in found.rejections]
    tensors = {name: getattr(found, name) for name in ("points", "losses", "gradients")}
    Container("Search", about | {"rejections": reasons}, tensors).write(path)
    return found


def read(path: Path, kind: str, about: Mapping[str, Any]) -> Container:
    """Read a file, and check that it is of what is asked for.

    Args:
        path: The file.
        kind: What it must hold.
        about: What it must be of; numbers under ``"start"`` up to rounding.

    Raises:
        FileError: If it is damaged, or of something else.
    """
    try:
        content = Container.read(path)
    except FileError as error:
        raise FileError(f"{error} {_AGAIN}") from error
    if content.kind != kind:
        raise FileError(
            f"`{path}` must hold a {kind}; it holds a {content.kind}. {_AGAIN}"
        )
    for name, value in json.loads(json.dumps(about)).items():
        there = content.settings.get(name)
        if not (_near(value, there) if name == "start" else value == there):
            raise FileError(
                f"`{path}` must be of the same {name}; asked for {value}, and it has "
                f"{there}. Are network, loss, data and settings the same? {_AGAIN}"
            )
    return content


def _start(model: nn.Module, loss_fn: LossFunction, data: Batches) -> list[float]:
    """Return what network, loss and data are known by."""
    risk = Risk.of(model, loss_fn, data, progress=False)
    return [risk.value(), float(risk.gradient().norm()), float(risk.point.norm())]


def _near(wanted: list[float], there: object) -> bool:
    return isinstance(there, list) and all(
        isinstance(b, float | int) and math.isclose(a, b, rel_tol=_SAME_START)
        for a, b in zip(wanted, there, strict=False)
    )


def _found(content: Container) -> Found:
    reasons = content.settings["rejections"]
    return Found(
        content.tensors["points"],
        content.tensors["losses"],
        content.tensors["gradients"],
        tuple(None if name is None else Rejection[name] for name in reasons),
    )
