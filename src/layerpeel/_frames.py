"""Tables as pandas frames; pandas is imported when one is asked for, and not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # pandas is optional, and annotations are checked at run time in tests
    DataFrame = Any

__all__ = ["DataFrame", "data_frame"]


def data_frame(
    content: Mapping[str, Any] | Sequence[Any], columns: Sequence[str] | None = None
) -> DataFrame:
    """Return a ``pandas.DataFrame``.

    Args:
        content: Columns by name, or rows.
        columns: Names of the columns of rows.

    Raises:
        ImportError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "`to_frame` needs pandas: pip install 'layerpeel[study]'. "
            "`to_dict` needs nothing."
        ) from error
    return pandas.DataFrame(content, columns=None if columns is None else list(columns))
