"""Measuring inside a ``torch.distributed`` job: shards, merges, errors that travel."""

from layerpeel.measurement.distributed.all_merge import all_merge
from layerpeel.measurement.distributed.errors import shared_errors
from layerpeel.measurement.distributed.reducer import (
    AbstractReducer,
    GroupReducer,
    LocalReducer,
    reducer,
)
from layerpeel.measurement.distributed.unpadded import without_padding

__all__ = [
    "AbstractReducer",
    "GroupReducer",
    "LocalReducer",
    "all_merge",
    "reducer",
    "shared_errors",
    "without_padding",
]
