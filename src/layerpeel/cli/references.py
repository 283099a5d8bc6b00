"""References to objects in Python: ``package.module:name`` or ``path/to/file.py:name``.

Following one imports the caller's own code, and therefore runs it. What that code
raises is told as the caller's error, with the line where it happened.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

from layerpeel._checks import SourceError, listed


def load_object(reference: str) -> object:
    """Follow a reference to an object in Python, importing its module.

    The current directory, or the directory of the file, is put first on the import
    path, as Python itself does for ``-m`` and for a script.

    Args:
        reference: ``package.module:name`` or ``path/to/file.py:name``; the name may
            have dots.

    Returns:
        The object.

    Raises:
        SourceError: If the reference is malformed, the module or the name is missing,
            or the module fails to import. The message lists what there is.
        FileNotFoundError: If the file is missing.
    """
    location, _, name = reference.rpartition(":")
    if not location or not name:
        raise SourceError(
            "A reference must read `package.module:name` or `path/to/file.py:name`; "
            f"got {reference!r}."
        )
    module = (
        _import_file(location) if location.endswith(".py") else _import_module(location)
    )
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise SourceError(_no_attribute(module, location, name))
        found = getattr(found, part)
    return found


def call(factory: Callable[[], object], reference: str) -> object:
    """Call what a reference led to, without arguments.

    Args:
        factory: What to call.
        reference: The reference that led to it, for messages.

    Returns:
        What the call returns.

    Raises:
        SourceError: If it needs arguments, or raises.
    """
    try:
        inspect.signature(factory).bind()
    except ValueError:
        pass  # some built-ins have no signature
    except TypeError as error:
        raise SourceError(
            f"`{reference}` must be callable without arguments; its signature is "
            f"`{inspect.signature(factory)}`. Wrap it in a function that fills them in."
        ) from error
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _raised(f"Calling `{reference}`", error) from error


def _import_module(name: str) -> ModuleType:
    _search_first(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _raised(f"Importing `{name}`", error) from error
        known = [module.name for module in pkgutil.iter_modules()]
        raise SourceError(
            f"There is no module `{error.name}` in the current directory or among the "
            f"installed packages.{_close(error.name, known)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _raised(f"Importing `{name}`", error) from error


def _import_file(location: str) -> ModuleType:
    file = Path(location).resolve()
    if not file.is_file():
        siblings = [sibling.name for sibling in file.parent.glob("*.py")]
        raise FileNotFoundError(
            f"There is no file `{location}`.{_close(file.name, siblings)}"
        )
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    # The plain name lets workers of a data loader unpickle what the file defines; a
    # file called like a module that is already there must not replace it.
    taken = loaded is not None or file.stem in sys.stdlib_module_names
    name = f"{file.stem}_{zlib.crc32(bytes(file)):x}" if taken else file.stem
    return sys.modules[name] if name in sys.modules else _execute(name, file)


def _execute(name: str, file: Path) -> ModuleType:
    _search_first(file.parent)
    loader = SourceFileLoader(name, str(file))
    spec = ModuleSpec(name, loader, origin=str(file))
    spec.has_location = True  # sets __file__
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _raised(f"Importing `{file.name}`", error) from error
    return module


def _search_first(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _no_attribute(module: ModuleType, location: str, name: str) -> str:
    public = _public_names(module)
    there = f"it has {listed([f'`{n}`' for n in public])}" if public else "it is empty"
    return f"`{location}` has no `{name}`; {there}.{_close(name, public)}"


def _public_names(module: ModuleType) -> list[str]:
    """List what a module offers: what it defines, without what it imports."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and _belongs(value, module)
    ]


def _belongs(value: object, module: ModuleType) -> bool:
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        package = module.__name__.partition(".")[0]
        return (value.__module__ or "").partition(".")[0] == package
    # An instance is the module's own whatever its class: a model, a loader.
    markers = ("__future__", "typing")
    return not isinstance(value, ModuleType) and type(value).__module__ not in markers


def _raised(what: str, error: BaseException) -> SourceError:
    """Describe an error of the user's own code by its innermost line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return SourceError(
        f"{what} raised {type(error).__name__}: {error} "
        f"({Path(frame.filename).name}, line {frame.lineno})."
    )


def _close(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3)
    return (
        f" Did you mean {' or '.join(f'`{match}`' for match in close)}?"
        if close
        else ""
    )
