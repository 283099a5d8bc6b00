"""Progress bars: on stderr when it is a terminal, silent otherwise, never on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

T = TypeVar("T")


def track(
    iterable: Iterable[T],
    description: str,
    *,
    total: int | None = None,
    show: bool | None = None,
) -> Iterator[T]:
    """Yield the items of an iterable, with a progress bar where someone can see it.

    Args:
        iterable: What to iterate over; taken one item at a time.
        description: What is going on, shown before the bar.
        total: The number of items. When omitted it is ``len(iterable)``; without a
            length the bar shows that something moves, and how long it has taken.
        show: ``True`` or ``False`` to force the bar or to suppress it. When omitted, it
            is shown if stderr is a terminal.

    Yields:
        The items, unchanged and in order.

    Example:
        >>> list(track("abc", "Spelling", show=False))
        ['a', 'b', 'c']
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield from iterable
        return
    # Imported here: a library call that shows no bar does not pay for a renderer.
    from rich.console import Console
    from rich.progress import Progress

    total = total or length_hint(iterable) or None
    console = Console(stderr=True)
    # A finished bar leaves the terminal; in a log that asked for it, one line stays.
    with Progress(console=console, transient=console.is_terminal) as bars:
        yield from bars.track(iterable, total=total, description=description)
