"""How the command line speaks: errors in one message, warnings in a line, on stderr."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from layerpeel._checks import LayerpeelError

# What the API raises when the caller's model, data or files are not what they must be.
_EXPECTED = (LayerpeelError, ValueError, OSError, ImportError)


@contextmanager
def told(debug: bool) -> Iterator[None]:
    """Turn an error inside into one message on stderr and exit code 2.

    Args:
        debug: Whether to show the traceback too.

    Raises:
        typer.Exit: If anything was raised inside; with code 130 after Ctrl-C, since 1
            would stand for findings.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _tell_warning
        try:
            yield
        except typer.Exit:
            raise
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except Exception as error:  # a fault of ours too: exit 1 is kept for findings
            _tell(error, debug)
            raise typer.Exit(2) from error


def _tell(error: Exception, debug: bool) -> None:
    if debug:
        sys.stderr.write(traceback.format_exc())
    if isinstance(error, _EXPECTED):
        typer.echo(f"Error: {error}", err=True)
        return
    # Not exit 1, which stands for findings, even where the fault may be ours.
    typer.echo(
        f"Error: unexpected {type(error).__name__}: {error} "
        "(--debug shows where it comes from)",
        err=True,
    )


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"Warning: {message}", err=True)
