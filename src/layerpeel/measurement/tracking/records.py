"""One number at one step, and how it is written down: the same in tables and in logs."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import NamedTuple

from layerpeel._json import plain

COLUMNS = ("step", "epoch", "metric", "value")


class Record(NamedTuple):
    """The value of one metric at one step.

    Attributes:
        step: The step of training, such as the number of updates so far.
        epoch: The epoch, possibly a fraction; NaN where there is none.
        metric: The metric's name.
        value: Its value; NaN where it is undefined.
    """

    step: int
    epoch: float
    metric: str
    value: float


class CSVFormat:
    """A line ``step,epoch,metric,value`` for each record, below a header."""

    suffix = ".csv"
    header = ",".join(COLUMNS) + "\n"

    @staticmethod
    def line(record: Record) -> str:
        """Write a record down; numbers keep all their digits."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(record)
        return text.getvalue()

    @staticmethod
    def record(line: str) -> Record:
        """Read a record.

        Raises:
            ValueError: If the line holds none.
        """
        step, epoch, metric, value = next(csv.reader([line]))
        return Record(int(step), float(epoch), metric, float(value))


class JSONLinesFormat:
    """A JSON object with the same four entries for each record, one a line."""

    suffix = ".jsonl"
    header = ""

    @staticmethod
    def line(record: Record) -> str:
        """Write a record down; NaN becomes ``null`` and infinity a text."""
        return json.dumps(plain(record._asdict()), allow_nan=False) + "\n"

    @staticmethod
    def record(line: str) -> Record:
        """Read a record.

        Raises:
            ValueError: If the line holds none.
        """
        entries = json.loads(line)
        if not isinstance(entries, dict) or set(entries) != set(COLUMNS):
            raise ValueError(f"its entries must be {', '.join(COLUMNS)}")
        epoch, value = (
            math.nan if entries[name] is None else float(entries[name])
            for name in ("epoch", "value")
        )
        return Record(int(entries["step"]), epoch, str(entries["metric"]), value)
