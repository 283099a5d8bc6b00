"""What a measurement needs of the other processes, if there are others."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from layerpeel._checks import RankError, listed
from layerpeel._warnings import warn
from layerpeel.measurement.distributed.all_merge import all_merge
from layerpeel.measurement.distributed.errors import shared_errors
from layerpeel.measurement.distributed.exchange import Group, exchange, is_distributed
from layerpeel.measurement.distributed.unpadded import without_padding
from layerpeel.measurement.files.digest import digest
from layerpeel.measurement.statistics.statistic import Statistic

S = TypeVar("S", bound=Statistic)


class AbstractReducer(ABC):
    """Combines what processes measure; every process makes the same calls in order."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Which of the processes this is."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many there are."""

    @abstractmethod
    def merge(self, value: S | None) -> S:
        """Return the value of all data; see :func:`all_merge`."""

    @abstractmethod
    def errors(self) -> AbstractContextManager[None]:
        """Return a block whose errors all processes hear of; see :func:`shared_errors`."""

    @abstractmethod
    def data(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return a loader without repetitions; see :func:`without_padding`."""

    @abstractmethod
    def gathered(self, said: Any) -> list[Any]:  # noqa: ANN401 - whatever JSON can hold
        """Return what each process says, in order; anything that JSON can hold."""

    def common(self, what: str, said: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """Return what all processes say alike.

        Args:
            what: What it is, for the message.
            said: What this process says; ``None`` if it has nothing to say.

        Returns:
            What those that say something say; ``None`` if none does.

        Raises:
            RankError: On every process, if two say different things.
        """
        answers = {
            k: text for k, text in enumerate(self.gathered(said)) if text is not None
        }
        if not answers:
            return None
        first = min(answers)
        others = [f"rank {k}" for k, text in answers.items() if text != answers[first]]
        if others:
            raise RankError(
                f"All ranks must have the same {what}; {listed(others)} must agree with "
                f"rank {first}, and does not. Give every rank the same model and options."
            )
        return answers[first]

    def warn_of_copies(self, value: Statistic | None) -> None:
        """Warn if two processes measured the same samples in the same order.

        Args:
            value: What this process has measured; ``None`` if it had no data.

        Warns:
            UserWarning: On the first process, if two values are the same, bit by bit.
        """
        digests = self.gathered(None if value is None else digest(value))
        twice = [k for k, one in enumerate(digests) if one and one in digests[:k]]
        if twice and self.rank == 0:
            warn(
                f"Every rank must measure data of its own; rank {listed(twice)} measured "
                "the same as a rank before it, and these samples count more than once. "
                "Give the loader a `DistributedSampler`.",
                UserWarning,
            )


class LocalReducer(AbstractReducer):
    """One process: everything is its own."""

    @property
    def rank(self) -> int:
        """Zero."""
        return 0

    @property
    def size(self) -> int:
        """One."""
        return 1

    def merge(self, value: S | None) -> S:
        """Return the value; an error without one."""
        return all_merge(value) if value is None else value

    def errors(self) -> AbstractContextManager[None]:
        """Return an ordinary block."""
        return nullcontext()

    def data(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return the loader."""
        return loader

    def gathered(self, said: Any) -> list[Any]:  # noqa: ANN401 - whatever JSON can hold
        """Return what this process says, alone."""
        return [said]


@dataclass(frozen=True, eq=False)
class GroupReducer(AbstractReducer):
    """The processes of a group of a ``torch.distributed`` job.

    Attributes:
        group: The processes; all of the job if ``None``.
    """

    group: Group = None

    @property
    def rank(self) -> int:
        """Which of the processes this is."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """How many there are."""
        return dist.get_world_size(self.group)

    def merge(self, value: S | None) -> S:
        """Return the value of all data, the same on every process."""
        return all_merge(value, self.group)

    def errors(self) -> AbstractContextManager[None]:
        """Return a block at whose end all raise if one did."""
        return shared_errors(self.group)

    def data(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return the loader without what its sampler repeats."""
        return without_padding(loader, self.group)

    def gathered(self, said: Any) -> list[Any]:  # noqa: ANN401 - whatever JSON can hold
        """Return what each process says, in the order of ranks."""
        return [json.loads(text) for text in exchange(json.dumps(said), self.group)]


def reducer(group: Group = None) -> AbstractReducer:
    """Return what combines measurements here: over a job, or not at all.

    Args:
        group: The processes that take part; all of a job when omitted.
    """
    together = is_distributed() and dist.get_world_size(group) > 1
    return GroupReducer(group) if together else LocalReducer()
