"""Digests: whether two values are the same, bit by bit, without having both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from layerpeel.measurement.files.packed import split_parts
from layerpeel.measurement.statistics.statistic import Statistic


def digest(value: Statistic) -> str:
    """Return the SHA-256 digest of a statistic, as hexadecimal digits."""
    tensors, settings = split_parts(value.parts())
    kind = {"kind": type(value).__name__, "settings": json.dumps(settings)}
    return content_digest(kind, tensors)


def content_digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 digest of every name, length and byte, in order of the names.

    Args:
        metadata: Texts by name.
        tensors: Tensors by name, on any device.
    """
    sha = hashlib.sha256()
    sha.update(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # Bytes are hashed where they lie: a copy would double the memory.
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
