"""Merging statistics that were measured apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerpeel._checks import FileError, MergeError
from layerpeel.cli import options as opt
from layerpeel.cli.console import told
from layerpeel.cli.output import deliver_measurement
from layerpeel.cli.usage import check_statistics, overwritten
from layerpeel.measurement import Measurement
from layerpeel.measurement.files import load_measurement, merge_measurements
from layerpeel.measurement.files.digest import digest


def merge(
    files: opt.StatsFiles,
    out: opt.StatsOut = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Merge the statistics of parts of the data, each measured on its own."""
    with told(debug):
        check_statistics(out)
        _check_kept(files, out)
        measurement = _merged(files)
        deliver_measurement(measurement, out, as_json, quiet)


def _check_kept(files: Sequence[Path], out: Path | None) -> None:
    """Check that no part is overwritten: it could not be merged with others again.

    Raises:
        FileError: If the output is one of the files.
    """
    same = None if out is None else overwritten(out, files)
    if same is not None:
        raise FileError(
            f"--out must be another file than those that are merged; `{out}` is "
            f"`{same}`. Choose another name."
        )


def _merged(files: Sequence[Path]) -> Measurement:
    """Merge file by file: two measurements are held at a time.

    Raises:
        FileError: If two files hold the same statistics.
        MergeError: If a file does not fit those before it.
    """
    first, *others = files
    merged = load_measurement(first)
    seen = {digest(merged.statistics): first}
    for file in others:
        part = load_measurement(file)
        known = seen.setdefault(digest(part.statistics), file)
        if known is not file:
            raise FileError(
                f"Files must be about different data; `{file}` holds the same as "
                f"`{known}`. Leave one out: its samples would count twice."
            )
        try:
            merged = merge_measurements(merged, part)
        except MergeError as error:
            raise MergeError(f"`{file}` does not fit `{first}`: {error}") from error
    return merged
