"""What is refused before any work: options that do not fit, files not to be written."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path

from layerpeel._checks import FileError
from layerpeel._files import check_writable
from layerpeel.cli.environment import install_line
from layerpeel.measurement.files.container import SUFFIX, check_suffix
from layerpeel.reports.document import SUFFIXES

PICTURE_SUFFIXES = (".svg", ".png", ".pdf")


def check_source(given: Mapping[str, object], of_model: Mapping[str, object]) -> None:
    """Check that there is one source of a measurement, with the options it takes.

    Args:
        given: What was typed for each source, by its name; ``None`` for nothing. The
            first is MODEL.
        of_model: The options that go with MODEL alone; the first is its data.

    Raises:
        ValueError: If there is none, more than one, or an option too many or too few.
    """
    typed = [name for name, value in given.items() if value is not None]
    if len(typed) != 1:
        first, *others = given
        listed = f"{first} with --data, or {', or '.join(others)}"
        got = " and ".join(typed) or "nothing"
        raise ValueError(f"Give either {listed}; got {got}.")
    (source,) = typed
    options = [f"--{k.replace('_', '-')}" for k, v in of_model.items() if v is not None]
    if source == "MODEL" and of_model["data"] is None:
        raise ValueError("MODEL needs --data: the data that it was trained on.")
    if source != "MODEL" and options:
        raise ValueError(
            f"{source} needs no model and does not go with {', '.join(options)}. Leave "
            "one out."
        )


def check_report(out: Path | None) -> None:
    """Check that a report can be written.

    Raises:
        ValueError: If the suffix is no report's.
        ImportError: If what writes it is not installed.
        OSError: If the file cannot be written.
    """
    if out is None:
        return
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}; got '{out}'.")
    if out.suffix == ".html":
        check_installed("jinja2", "report")
    check_writable(out)


def check_statistics(out: Path | None) -> None:
    """Check that statistics can be written.

    Raises:
        FileError: If the suffix is another one.
        OSError: If the file cannot be written.
    """
    if out is not None:
        check_suffix(out)
        check_writable(out)


def check_picture(path: Path | None) -> None:
    """Check that a picture can be written.

    Raises:
        ValueError: If the suffix is no picture's.
        OSError: If the file cannot be written.
    """
    if path is None:
        return
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(
            f"--phase-diagram must end in {', '.join(PICTURE_SUFFIXES)}; got '{path}'."
        )
    check_writable(path)


def check_kept(path: Path | None, inputs: Iterable[str | None]) -> None:
    """Check that the neurons kept can be written, and over nothing that is read.

    Args:
        path: The file to be, if one was typed.
        inputs: Files, folders and references that were typed; ``None`` for nothing.

    Raises:
        FileError: If the suffix is another one, or the file is an input.
        OSError: If the file cannot be written.
    """
    if path is None:
        return
    if path.suffix != SUFFIX:
        raise FileError(f"--kept must end in {SUFFIX}; got '{path}'. Rename it.")
    check_writable(path)
    typed = [Path(one) for one in inputs if one is not None]
    read = overwritten(path, [file for one in typed for file in _files(one)])
    if read is not None:
        raise FileError(
            f"--kept must be another file than those that are read; `{path}` is "
            f"`{read}`. Choose another name."
        )


def overwritten(out: Path, files: Iterable[Path]) -> Path | None:
    """Return the file that writing another one would replace, if there is one.

    Args:
        out: The file to be. Symbolic links are followed.
        files: Files that are read.
    """
    if not out.exists():
        return None
    return next((f for f in files if f.exists() and out.samefile(f)), None)


def _files(path: Path) -> Iterable[Path]:
    """Return the files of a folder, such as one of Hugging Face's, or a file itself."""
    return path.iterdir() if path.is_dir() else [path]


def check_installed(module: str, extra: str) -> None:
    """Check that an optional part is installed.

    Raises:
        ImportError: If it is not; the message has the line that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"A report in HTML needs `{module}`, which is not installed. "
            f"Run `{install_line(extra)}`."
        )
