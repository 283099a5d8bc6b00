"""The ``layerpeel`` command: what is typed becomes calls of the public API."""

from layerpeel.cli.entry import main

__all__ = ["main"]
