"""JSON of results: what it cannot hold is written down, never dropped or invented."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def plain(value: Any) -> Any:  # noqa: ANN401 - anything a result is made of
    """Return a value as what JSON can hold.

    Tensors and tuples become lists. NaN becomes ``None`` and infinity the text
    ``"Infinity"`` or ``"-Infinity"``: JSON has neither.

    Args:
        value: Numbers, text, truth values, ``None``, tensors, and mappings and sequences
            of these, at any depth.

    Example:
        >>> plain({"gap": float("nan"), "shape": (2, float("inf"))})
        {'gap': None, 'shape': [2, 'Infinity']}
    """
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def json_text(content: Mapping[str, Any]) -> str:
    r"""Return plain content as JSON.

    ASCII throughout, and without ``<``, ``>`` and ``&``, which are written as escapes,
    so that it can be put into a page or a shell as it is.

    Args:
        content: What :func:`plain` returns.

    Example:
        >>> json_text({"name": "<b>"})
        '{\n  "name": "\\u003cb\\u003e"\n}\n'
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"
