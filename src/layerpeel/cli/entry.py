"""The entry point of the ``layerpeel`` command; its commands are in `commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``layerpeel`` command and exit.

    Args:
        arguments: What follows the name of the command; what was typed, when omitted.

    Raises:
        SystemExit: Always: 0 when all is well, 1 for findings at or above
            ``--fail-on``, 2 for bad usage or bad input.
    """
    try:
        import typer  # noqa: F401  # the commands are declared with it
    except ImportError:
        sys.stderr.write(
            "The `layerpeel` command needs `typer`, which is not installed. "
            "Run `pip install 'layerpeel[cli]'`.\n"
        )
        sys.exit(2)
    from layerpeel.cli.commands import app

    app(args=arguments, prog_name="layerpeel")
