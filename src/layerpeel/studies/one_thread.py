"""On one thread: sums in one order, and no waiting for others in steps that are short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread, which changes nothing but time and the last bits.

    A step takes a millisecond here: waiting for a second thread on a busy machine costs
    far more than it saves, and sums in one order give the same network on any machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
