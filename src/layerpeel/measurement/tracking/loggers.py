"""Where scalars go: files that outlive a kill, TensorBoard, or any function.

A file is appended to and flushed at every step. A run that is resumed from a checkpoint
measures some steps again, those after the checkpoint: their records are replaced, and a
line that a kill cut short is removed, so that the file reads as if nothing had happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from layerpeel._checks import FileError
from layerpeel._files import check_writable, damaged_file, write_whole
from layerpeel.measurement.tracking.history import records
from layerpeel.measurement.tracking.records import CSVFormat, JSONLinesFormat, Record


@runtime_checkable
class Logger(Protocol):
    """Whatever takes scalars, step by step."""

    def write(
        self, scalars: Mapping[str, float], step: int, epoch: float | None
    ) -> None:
        """Take the scalars of one step.

        Args:
            scalars: Values by name; NaN where undefined.
            step: The step of training.
            epoch: The epoch, if any.
        """


class TensorBoardLogger:
    """Writes to a ``SummaryWriter``, or to anything else with ``add_scalar``.

    Args:
        writer: The writer; it stays the caller's to close.
        prefix: What stands before the names, to group them.
    """

    def __init__(self, writer: Any, prefix: str = "collapse/") -> None:  # noqa: ANN401
        self._writer, self._prefix = writer, prefix

    def write(
        self, scalars: Mapping[str, float], step: int, epoch: float | None
    ) -> None:
        """Add each scalar, and flush."""
        for name, value in scalars.items():
            self._writer.add_scalar(self._prefix + name, value, step)
        if hasattr(self._writer, "flush"):
            self._writer.flush()


class FunctionLogger:
    """Calls ``function(scalars, step)``, the form of ``wandb.log`` and ``log_metrics``.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[[dict[str, float], int], object]) -> None:
        self._function = function

    def write(
        self, scalars: Mapping[str, float], step: int, epoch: float | None
    ) -> None:
        """Call the function."""
        self._function(dict(scalars), step)


class _FileLogger:
    """Appends records to a file, line by line.

    Args:
        path: The file; its directory must exist.
        resume: Whether the file may hold records of an earlier run. Those before the
            first step that is written now stay; the others, which this run measures
            again, are dropped.

    Raises:
        FileExistsError: If the file holds records, and ``resume`` is not set.
        FileError: If it holds something else.
        OSError: If it cannot be written.
    """

    _format: type[CSVFormat] | type[JSONLinesFormat]

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = check_writable(path)
        self._begun = False
        held = self._held()
        if held and not resume:
            raise FileExistsError(
                f"`{path}` holds steps {held[0].step} to {held[-1].step} of an earlier "
                "run. Pass `resume=True` to continue it, or choose another file."
            )

    def write(
        self, scalars: Mapping[str, float], step: int, epoch: float | None
    ) -> None:
        """Append the scalars of one step, and flush.

        Raises:
            OSError: If the file cannot be written.
        """
        if not self._begun:
            self._rewind(step)
            self._begun = True
        new = records(step, scalars, epoch)
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write("".join(map(self._format.line, new)))

    def _rewind(self, step: int) -> None:
        """Leave the records before a step, and nothing else."""
        kept = [record for record in self._held() if record.step < step]
        text = self._format.header + "".join(map(self._format.line, kept))
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            write_whole(self.path, text)

    def _held(self) -> list[Record]:
        """Return the records of the file, without a last line that was cut short."""
        if not self.path.exists():
            return []
        try:
            text = self.path.read_bytes().decode()
            whole = text[: text.rfind("\n") + 1]
            if not whole and not self._format.header.startswith(text):
                self._format.record(text)  # a whole foreign file without a line end
            return self._parsed(whole)
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise damaged_file(self.path, self._format.suffix, error) from error

    def _parsed(self, text: str) -> list[Record]:
        lines = text.splitlines(keepends=True)
        if self._format.header and lines:
            if lines[0] != self._format.header:
                raise ValueError(f"its first line must be {self._format.header!r}")
            lines = lines[1:]
        return [self._format.record(line) for line in lines]


class CSVLogger(_FileLogger):
    """Appends lines ``step,epoch,metric,value`` to a CSV file.

    The file is at any time what :meth:`History.to_csv` would write.

    Args:
        path: The file; its directory must exist.
        resume: Whether the file may hold records of an earlier run. Those before the
            first step that is written now stay; the others, which this run measures
            again, are dropped.

    Raises:
        FileExistsError: If the file holds records, and ``resume`` is not set.
        FileError: If it holds something else.
        OSError: If it cannot be written.
    """

    _format = CSVFormat


class JSONLinesLogger(_FileLogger):
    """Appends one JSON object a line, with the same four entries.

    The file is at any time what :meth:`History.to_jsonl` would write.

    Args:
        path: The file; its directory must exist.
        resume: As for :class:`CSVLogger`.

    Raises:
        FileExistsError: If the file holds records, and ``resume`` is not set.
        FileError: If it holds something else.
        OSError: If it cannot be written.
    """

    _format = JSONLinesFormat


_FILES: dict[str, type[CSVLogger] | type[JSONLinesLogger]] = {
    ".csv": CSVLogger,
    ".jsonl": JSONLinesLogger,
}


def as_logger(target: object) -> Logger:
    """Return what the caller has as a logger.

    Args:
        target: A logger; a path ending in ``.csv`` or ``.jsonl``; a writer with
            ``add_scalar``; a logger with ``log_metrics``, as Lightning's; or a function
            ``(scalars, step)``.

    Raises:
        FileError: If a path ends in something else.
        TypeError: If it is none of these.
    """
    if isinstance(target, Logger):
        # A stream has `write` too, with other arguments.
        if hasattr(target, "writable"):
            raise TypeError(f"A logger must be no open file; got {target!r}. {_HINT}")
        return target
    if isinstance(target, str | os.PathLike):
        return _file_logger(Path(target))
    if hasattr(target, "add_scalar"):
        return TensorBoardLogger(target)
    if hasattr(target, "log_metrics"):
        return FunctionLogger(target.log_metrics)
    if callable(target):
        return FunctionLogger(target)
    raise TypeError(f"A logger was expected; got {type(target).__name__}. {_HINT}")


def _file_logger(path: Path) -> Logger:
    kind = _FILES.get(path.suffix.lower())
    if kind is None:
        raise FileError(
            f"A log file must end in {' or '.join(_FILES)}; got `{path}`. Rename it."
        )
    return kind(path)


_HINT = (
    "Pass a path ending in .csv or .jsonl, a TensorBoard SummaryWriter, a logger with "
    "`log_metrics`, or a function of (scalars, step)."
)
