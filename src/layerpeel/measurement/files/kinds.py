"""Statistics by the name of their class, as files and messages name them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache

from layerpeel._checks import FileError, listed
from layerpeel.measurement import statistics
from layerpeel.measurement.statistics.statistic import Statistic


def kind_named(name: str) -> type[Statistic]:
    """Return the class of a statistic.

    Args:
        name: The name of the class, such as ``"ClassMoments"``.

    Returns:
        The class: one of this package, or any other that has been imported.

    Raises:
        FileError: If there is none of that name, or more than one.
    """
    _import_all()
    known = sorted(_descendants(Statistic), key=lambda kind: kind.__name__)
    found = [kind for kind in known if kind.__name__ == name]
    if len(found) == 1:
        return found[0]
    if found:
        places = [f"{kind.__module__}.{kind.__qualname__}" for kind in found]
        raise FileError(
            f"The kind {name!r} must be one statistic; it is {listed(places)}. Rename "
            "all but one of these classes."
        )
    names = [k.__name__ for k in known if not k.__name__.startswith("_")]
    raise FileError(
        f"The kind {name!r} must be a statistic; there are {listed(names, 20)}. Import "
        "the module that defines it, or use the version of layerpeel that wrote it."
    )


@cache
def _import_all() -> None:
    """Import every module of statistics: a class is known once its module is."""
    for module in pkgutil.iter_modules(statistics.__path__, statistics.__name__ + "."):
        importlib.import_module(module.name)


def _descendants(kind: type[Statistic]) -> Iterator[type[Statistic]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
