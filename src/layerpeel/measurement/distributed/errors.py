"""Errors that travel: when one process raises, none waits for it in vain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from layerpeel._checks import RankError, listed
from layerpeel.measurement.distributed.exchange import Group, exchange, is_distributed


@contextmanager
def shared_errors(group: Group = None) -> Iterator[None]:
    """Make every process of a group raise when one of them raises inside.

    Every process has to enter and leave the block. At its end they tell each other how
    it went: one that raised raises the same again, and all others raise an error that
    says which rank raised what. Inside, no process may wait for another, since that one
    may have left the block already: merge and exchange after it.

    Outside of a ``torch.distributed`` job the block is an ordinary one.

    Args:
        group: The processes that take part; all of them when omitted.

    Raises:
        RankError: On processes that did well, if another one raised.

    Example:
        >>> with shared_errors():
        ...     answer = 6 * 7
    """
    if not is_distributed():
        yield
        return
    try:
        yield
    except BaseException as error:
        # An interrupt too: the others would wait for a process that is gone.
        with suppress(Exception):  # of a job that fell apart, the first error counts
            exchange(_described(error), group)
        raise
    _check(exchange("", group), dist.get_rank(group))


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _check(said: list[str], rank: int) -> None:
    raised = [f"rank {k} raised {text}" for k, text in enumerate(said) if text]
    if raised:
        raise RankError(
            "All ranks must succeed together; of "
            f"{len(said)}, {listed(raised, 4)}. Rank {rank} did well, and stops with "
            "the job: correct the cause there."
        )
