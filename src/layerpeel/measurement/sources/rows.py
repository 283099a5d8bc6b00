"""What every source of data comes down to: features, labels and logits of some rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from torch import Tensor

from layerpeel._checks import BatchError
from layerpeel.measurement.statistics.nearest_mean import Decisions


class Rows(NamedTuple):
    """Some samples as the head sees them.

    Attributes:
        features: Inputs of the head, with shape :math:`(n, d)`.
        labels: Class indices in :math:`[0, K)`, with shape :math:`(n,)`.
        logits: Outputs of the network, bias included, with shape :math:`(n, K)`.
    """

    features: Tensor
    labels: Tensor
    logits: Tensor

    @property
    def decisions(self) -> Decisions:
        """The rows with the network's decision in place of its logits."""
        return Decisions(self.features, self.labels, self.logits.argmax(1))


# Where rows come from: each call goes through all the data once.
RowSource: TypeAlias = Callable[[], Iterator[Rows]]


class DecisionCache:
    """Keeps the features of a first pass, as long as they fit, for a second look.

    Args:
        limit: The largest number of bytes of features to keep.
        refill: Whether the data can be read again when they do not fit.
    """

    def __init__(self, limit: int, *, refill: bool) -> None:
        self._limit, self._refill = limit, refill
        self._bytes = 0
        self._kept: list[Decisions] = []

    def add(self, decisions: Decisions) -> None:
        """Keep some rows; once they no longer fit, all are let go.

        Raises:
            BatchError: If they do not fit, and the data cannot be read again.
        """
        self._bytes += decisions.features.nbytes
        if self.complete:
            self._kept.append(decisions)
        elif self._refill:
            self._kept = []
        else:
            raise BatchError(
                "A loader that can be read once must fit into the feature cache, since "
                "NC4 needs a second look at all features; they exceed `cache_bytes` = "
                f"{self._limit}. Pass a loader that can be iterated again, such as a "
                "DataLoader or a list, a larger `cache_bytes`, or `nc4='one_pass'`, "
                "which compares with running class means."
            )

    @property
    def complete(self) -> bool:
        """Whether all rows so far are kept."""
        return self._bytes <= self._limit

    def __iter__(self) -> Iterator[Decisions]:
        """Iterate over what is kept."""
        return iter(self._kept)
