"""Why something is undefined, collected for the reader of a report.

A report shows an undefined number as such and says why beside it; a warning each time it
is printed would say it twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from layerpeel._checks import UndefinedWarning
from layerpeel.reports.table import Table


@contextmanager
def causes() -> Iterator[list[str]]:
    """Collect the causes that are warned of inside, each once; pass other warnings on.

    Yields:
        The causes, in order; filled as they occur.
    """
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", UndefinedWarning)
        passed_on = warnings.showwarning

        def collect(
            message: Warning | str, category: type[Warning], *rest: object
        ) -> None:
            if not issubclass(category, UndefinedWarning):
                passed_on(message, category, *rest)  # type: ignore[arg-type]
            elif str(message) not in found:
                found.append(str(message))

        warnings.showwarning = collect  # type: ignore[assignment]
        yield found


def with_causes(build: Callable[[], Table]) -> Table:
    """Build a table, and add to its note why numbers in it are undefined.

    Args:
        build: Returns the table.
    """
    with causes() as found:
        table = build()
    return replace(table, note=" ".join([table.note, *found]).strip())
